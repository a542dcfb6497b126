"""The page is made from files alone, and shows what they say."""

import html
import io
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from latentry import files
from latentry.pipeline import train
from latentry.recipe import load_recipe
from latentry.report import figures
from latentry.report.page import write_report
from latentry.report.summary import summary
from latentry.run import Run


def test_the_report_is_made_again_from_the_files_of_the_run(finished_run, tmp_path, monkeypatch):
    run = Run(shutil.copytree(finished_run, tmp_path / "run"))
    first = write_report(run).read_text()
    for name in ("model", "checkpoints", "split.json"):
        (run.folder / name).rename(tmp_path / f"gone-{name.replace('/', '-')}")
    monkeypatch.setenv("LATENTRY_CACHE", str(tmp_path / "empty"))
    assert write_report(run).read_text() == first
    accuracy = f"{100 * run.results()['validation']['accuracy']:.1f} %"
    assert f"<b>{accuracy}</b>" in first
    assert "The test set has not been opened" in first
    assert first.count('alt="Its reconstruction"') == 3
    assert {path.name for path in run.report_folder.iterdir()} >= {"index.html", "confusion.png", "latent.png"}


def test_names_from_the_data_are_escaped(toy_folder, tmp_path):
    data = tmp_path / "data"
    names = ("<script>alert(1)", "b & b", "_$a|_$")
    for name, source in zip(names, ("circle", "cross", "stripes"), strict=True):
        (data / "train").mkdir(parents=True, exist_ok=True)
        (data / "train" / name).symlink_to(toy_folder / "train" / source)
    settings = {
        "pretrain.min_steps_per_epoch": 0,
        "classify.min_steps_per_epoch": 0,
        "pretrain.max_epochs": 0,
        "classify.max_epochs": 1,
        "data.limit": {},
        "data.source": str(data),
    }
    run = train(load_recipe("quick", settings), tmp_path / "run")
    page = write_report(run).read_text()
    assert "<script>" not in page
    assert html.escape(names[1]) in page
    assert "b & b" in summary(run.results())
    assert r"| _$a\|_$ | 34 |" in (run.model_folder / "README.md").read_text()


def test_a_class_without_images_to_validate_on_has_no_recall(finished_run, tmp_path):
    run = Run(shutil.copytree(finished_run, tmp_path / "run"))
    results = run.results()
    results["validation"]["per_class"][1] |= {"correct": 0, "total": 0, "recall": 0.0}
    files.write_json(run.results_file, results)
    assert "cross            -    [0/0]" in summary(run.results())
    page = write_report(run).read_text()
    assert "<td>cross</td><td>\u2013</td>" in page
    assert "| cross | 34 | \u2013 |" in (run.model_folder / "README.md").read_text()


def test_charts_of_many_classes_stay_small(monkeypatch):
    sides = []
    for limit in (figures.LARGEST_SIDE, 600):
        monkeypatch.setattr(figures, "LARGEST_SIDE", limit)
        chart = figures.confusion(np.eye(40, dtype=int).tolist(), [f"class {number}" for number in range(40)])
        with Image.open(io.BytesIO(chart.light)) as image:
            sides.append(max(image.size))
    assert sides[0] > 600 >= sides[1]


@pytest.mark.parametrize("epochs", [[1], [1, 2], list(range(1, 31))])
def test_epochs_are_whole_numbers_on_the_axis_of_a_curve(epochs, monkeypatch):
    axis = Figure(figsize=(3.4, 2.6)).add_subplot()
    monkeypatch.setattr(figures, "draw", lambda width, height, paint: paint(axis, figures.THEMES["light"]))
    rows = [{"stage": "pretrain", "epoch": epoch, "train_loss": 0.1, "validation_loss": 0.2} for epoch in epochs]
    figures.curve(rows, "pretrain", "loss", "loss")
    marks = [mark for mark in axis.get_xticks() if 0.5 <= mark <= epochs[-1] + 0.5]
    assert marks
    assert all(mark in (0, *epochs) for mark in marks)

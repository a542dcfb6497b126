"""What people have: a folder with images that are broken, unlabelled, of other sizes; a table; few of a class."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from latentry.data import load_train
from latentry.data.split import make_split
from latentry.models.saved import load_model
from latentry.pipeline import train
from latentry.recipe import load_recipe
from latentry.report.page import write_report
from latentry.training.job import Job

FAST = {
    "pretrain.max_epochs": 1,
    "classify.max_epochs": 1,
    "pretrain.min_steps_per_epoch": 2,
    "classify.min_steps_per_epoch": 2,
}


@pytest.fixture
def own_folder(toy_folder: Path, tmp_path: Path) -> Path:
    """The toy folder with a part val, a broken file, and images without labels."""
    folder = Path(shutil.copytree(toy_folder, tmp_path / "own"))
    for name in ("circle", "cross", "stripes"):
        for number in range(30, 40):
            source = folder / "train" / name / f"{number:03}.png"
            target = folder / ("val" if number < 35 else "unlabelled") / name / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
    (folder / "train" / "cross" / "000.png").write_bytes(b"")
    return folder


def test_unlabelled_broken_and_held_out_images_each_find_their_place(own_folder, tmp_path):
    settings = FAST | {"data.source": str(own_folder), "data.unlabelled": str(own_folder / "unlabelled")}
    recipe = load_recipe("quick", settings)
    run = train(recipe, tmp_path / "run")
    results = run.results()
    assert results["train_images"] == {"circle": 30, "cross": 29, "stripes": 30}
    assert results["unlabelled_images"] == 15
    assert results["skipped"] == {"train": 1}
    assert sum(row["total"] for row in results["validation"]["per_class"]) == 15
    with run.skipped_file.open(newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["part", "file", "reason"],
            ["train", str(own_folder / "train" / "cross" / "000.png"), "it is empty"],
        ]
    split = json.loads(run.split_file.read_text())
    assert len(split["unlabelled"]) == 15
    page = write_report(run).read_text()
    assert "its autoencoder saw 15 more without labels" in page
    assert "1 file could not be read and was left out" in page
    _, config = load_model(run.model_folder)
    assert config.class_shares == pytest.approx([30 / 89, 29 / 89, 30 / 89])
    assert config.trained_shares == config.class_shares
    errors = 10 ** (-np.load(run.predictions_file)["validation_psnr"] / 10)
    assert config.usual_error == pytest.approx(np.quantile(errors, 0.99))


def test_pretraining_sees_images_without_labels_and_classifying_does_not(own_folder):
    data = {"data.source": str(own_folder), "data.unlabelled": str(own_folder / "unlabelled")}
    recipe = load_recipe("quick", FAST | data)
    images = load_train(recipe.data)
    job = Job(recipe, images, make_split(images, recipe.data))
    assert set(job.loader("pretrain").indices.tolist()) == set(range(119)) - set(np.flatnonzero(images.held_out))
    assert (job.loader("classify").labels >= 0).all()
    assert len(job.loader("classify").labels) == 89
    assert len(job.loader("pretrain")) >= 2


def test_rebalancing_is_kept_with_the_model(toy_folder, tmp_path):
    settings = FAST | {"data.source": str(toy_folder), "data.limit": {"cross": 10}, "classify.class_weight": "balanced"}
    run = train(load_recipe("quick", settings), tmp_path / "run")
    _, config = load_model(run.model_folder)
    assert config.trained_shares == pytest.approx([1 / 3] * 3)
    assert config.class_shares[1] < 0.15


def test_a_table_with_groups_is_trained_on(toy_folder, tmp_path):
    files = sorted((toy_folder / "train").rglob("*.png"))
    rows = [f"{file},{file.parent.name},{number % 40 // 4}" for number, file in enumerate(files)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,video", *rows]) + "\n")
    settings = FAST | {"data.source": str(table), "data.group_column": "video", "data.image_size": 24}
    run = train(load_recipe("quick", settings), tmp_path / "run")
    split = json.loads(run.split_file.read_text())
    videos = [{number % 40 // 4 for number in split[part]} for part in ("train", "validation")]
    assert not videos[0] & videos[1]
    assert run.results()["network"]["image"] == [3, 24, 24]

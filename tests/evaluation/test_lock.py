"""The test set is opened once, by `evaluate`, and by nothing else."""

import ast
import shutil
from pathlib import Path

import pytest

import latentry
from latentry import data
from latentry.errors import DataError, RunError
from latentry.evaluation.evaluate import evaluate, load_predictions
from latentry.pipeline import train
from latentry.recipe import load_recipe
from latentry.report.page import write_report
from latentry.run import Run

SOURCE = Path(latentry.__file__).parent
OPENERS = {"data/__init__.py", "data/cifar10.py", "data/listing.py", "evaluation/evaluate.py"}
SETTINGS = {
    "pretrain.min_steps_per_epoch": 0,
    "classify.min_steps_per_epoch": 0,
    "pretrain.max_epochs": 1,
    "classify.max_epochs": 1,
    "classify.batch_size": 32,
    "data.limit": {},
}


def test_only_evaluate_mentions_the_test_images():
    mentions = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
            if names & {"load_test", "listed_for_test"}:
                mentions.add(path.relative_to(SOURCE).as_posix())
    assert mentions == OPENERS


@pytest.mark.slow
def test_training_never_opens_it_and_evaluating_opens_it_once(toy_folder, tmp_path, monkeypatch):
    opened = []
    genuine = data.listed_for_test
    monkeypatch.setattr(data, "listed_for_test", lambda *arguments: opened.append(1) or genuine(*arguments))
    run = train(load_recipe("quick", SETTINGS | {"data.source": str(toy_folder)}), tmp_path / "run")
    write_report(run)
    assert opened == []
    assert run.results()["test"] is None
    assert not [name for name in load_predictions(run) if name.startswith("test")]

    first = evaluate(run)
    assert opened == [1]
    assert sum(row["total"] for row in first["test"]["per_class"]) == 60
    assert load_predictions(run)["test_logits"].shape == (60, 3)
    (run.model_folder / "model.safetensors").unlink()
    assert evaluate(run) == first
    write_report(run)
    assert opened == [1]


def test_without_test_images_evaluate_says_so_and_changes_nothing(toy_folder, tmp_path):
    (tmp_path / "data").symlink_to(toy_folder / "train")
    recipe = load_recipe("quick", SETTINGS | {"data.source": str(tmp_path / "data"), "pretrain.max_epochs": 0})
    run = train(recipe, tmp_path / "run")
    before = run.results_file.read_bytes()
    with pytest.raises(DataError, match="has no test images"):
        evaluate(run)
    assert run.results_file.read_bytes() == before


def test_test_images_of_other_classes_are_refused_before_training_and_at_evaluation(toy_folder, tmp_path):
    data = shutil.copytree(toy_folder, tmp_path / "data")
    settings = SETTINGS | {"data.source": str(data), "pretrain.max_epochs": 0}
    run = train(load_recipe("quick", settings), tmp_path / "run", will_test=True)
    for part in ("train", "test"):
        (data / part / "cross").rename(data / part / "a cross")
    with pytest.raises(DataError, match="the model knows circle, cross, stripes"):
        evaluate(run)
    shutil.rmtree(data / "test" / "stripes")
    with pytest.raises(DataError, match="has the classes a cross, circle, and training has"):
        train(load_recipe("quick", settings), tmp_path / "second", will_test=True)
    assert run.results()["test"] is None
    assert not (tmp_path / "second").exists()
    with pytest.raises(DataError, match="no folder"):
        train(load_recipe("quick", {"data.source": str(tmp_path / "none")}), tmp_path / "third", will_test=True)


def test_an_unfinished_run_is_not_evaluated(tmp_path):
    run = Run.create(tmp_path / "run", load_recipe("quick"))
    with pytest.raises(RunError, match="not finished: continue it with"):
        evaluate(run)

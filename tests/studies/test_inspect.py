"""A look at data finds what was planted, reads no test label, and writes what it shows."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from latentry import data
from latentry.errors import DataError, RunError
from latentry.files import check_ours
from latentry.report.inspection import findings, write_inspection
from latentry.settings import Data
from latentry.studies import inspect


@pytest.fixture(scope="module")
def planted(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy images, with a picture that is in training and test, one under two labels, and a broken one.

    One class is called "all", as images without known labels are where they are counted.
    """
    folder = Path(shutil.copytree(toy_folder, tmp_path_factory.mktemp("planted") / "images"))
    for part in ("train", "test"):
        (folder / part / "stripes").rename(folder / part / "all")
    generator = np.random.default_rng(5)
    for number, places in enumerate((("train/circle", "test/circle"), ("train/circle", "train/cross"))):
        noise = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        for place in places:
            noise.save(folder / place / f"planted-{number}.png")
    (folder / "train" / "all" / "000.png").write_bytes(b"")
    return folder


@pytest.mark.slow
def test_what_was_planted_is_found(planted, tmp_path, monkeypatch):
    monkeypatch.setitem(inspect.SETTINGS, "pretrain.max_epochs", 1)
    monkeypatch.setitem(inspect.SETTINGS, "classify.max_epochs", 2)
    genuine = data.listed_for_test
    unread = np.full(1, -99)
    monkeypatch.setattr(
        data, "listed_for_test", lambda *source: dataclasses.replace(genuine(*source), labels=unread, class_names=())
    )
    shutil.copytree(planted / "train" / "cross", tmp_path / "unlabelled")
    inspection = inspect.inspect(Data(source=str(planted), unlabelled=str(tmp_path / "unlabelled")))
    content = json.loads(json.dumps(inspection.content))
    labelled = {"train": {"circle": 42, "cross": 41, "all": 39}}
    assert content["counts"] == labelled | {"unlabelled": {"all": 41}, "test": {"all": 61}}
    copies = [set(row["parts"]) == {"train", "unlabelled"} for row in content["duplicates"]]
    assert sum(copies) >= 41
    assert content["test_pixels_read"] is True
    assert len(content["just_below"]) == inspect.NUM_BELOW
    assert all(row["similarity"] < content["threshold"] for row in content["just_below"])
    names = [
        {Path(content["names"][str(row[side])]).relative_to(planted).as_posix() for side in ("first", "second")}
        for row in [row for row in content["duplicates"] if "unlabelled" not in row["parts"]][:2]
    ]
    assert {"train/circle/planted-0.png", "test/circle/planted-0.png"} in names
    assert {"train/circle/planted-1.png", "train/cross/planted-1.png"} in names
    assert 1 <= content["test_images_with_duplicates_in_training"] <= 61
    assert "planted-1.png" in {Path(content["names"][str(row["image"])]).name for row in content["label_suspects"]}
    worst = [row for row in content["worst_reconstructed"] if row["class"] == "circle"][:2]
    assert {Path(content["names"][str(row["image"])]).name for row in worst} == {"planted-0.png", "planted-1.png"}

    inspect.save(content, tmp_path)
    page = write_inspection(content, inspection.pictures, tmp_path)
    assert page.read_text().count("<img") > 10
    assert "could not be read: 1" in findings(content)
    with (tmp_path / "duplicates.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(content["duplicates"])
    assert {rows[0]["first_part"], rows[0]["second_part"]} <= {"train", "test", "unlabelled"}
    tables = (("labels", "label_suspects"), ("reconstructions", "worst_reconstructed"), ("skipped", "skipped"))
    for name, table in tables:
        with (tmp_path / f"{name}.csv").open(newline="") as stream:
            assert len(list(csv.DictReader(stream))) == len(content[table])
    check_ours(tmp_path, "inspection.json")


def test_images_that_belong_together_are_judged_by_networks_that_saw_none_of_them(toy_images, monkeypatch, tmp_path):
    groups = np.arange(len(toy_images)) // 3
    grouped = dataclasses.replace(toy_images, groups=groups)
    splits = []

    def trained(train, split, recipe, folder):
        splits.append(split)
        return SimpleNamespace(
            answers=lambda images, indices, *words, **options: [
                (np.arange(len(indices)), SimpleNamespace(probabilities=np.full((len(indices), 3), 1 / 3)))
            ]
        )

    monkeypatch.setattr(inspect, "_trained", trained)
    recipe = inspect._recipe(Data(source="arrays"), 32, 0)
    inspect._suspects(grouped, recipe, tmp_path)
    assert len(splits) == inspect.NUM_FOLDS
    for split in splits:
        apart = np.setdiff1d(np.arange(len(toy_images)), split.train)
        assert len(apart) > 20
        assert not np.isin(groups[apart], groups[split.train]).any()
    by_class = dataclasses.replace(toy_images, groups=toy_images.labels)
    with pytest.raises(DataError, match="are too few to set some apart: leave out --group-column"):
        inspect._suspects(by_class, recipe, tmp_path)


def test_what_is_in_the_way_is_named(tmp_path, toy_folder):
    (tmp_path / ".inspection.json.abcd_123.partial").touch()
    check_ours(tmp_path, "inspection.json")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match=r"is there already and holds no inspection\.json: choose another --out"):
        check_ours(tmp_path, "inspection.json")
    folder = Path(shutil.copytree(toy_folder, tmp_path / "images"))
    for path in sorted((folder / "train" / "cross").iterdir())[2:]:
        path.unlink()
    with pytest.raises(DataError, match="class 'cross' has 2 images, and looking for wrong labels needs 3"):
        inspect.inspect(Data(source=str(folder)))

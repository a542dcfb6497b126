"""Files in, rows out: an image, a folder, standard input; text, CSV, JSON."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latentry.deploy.predict import embed, pictures_of, predictions, write_rows
from latentry.deploy.predictor import Predictor
from latentry.errors import DataError


@pytest.fixture(scope="module")
def predictor(finished_run: Path) -> Predictor:
    return Predictor.load(finished_run)


def rows_of(predictor: Predictor, source: str | Path, top: int = 3) -> list[dict]:
    return list(predictions(predictor, pictures_of(str(source), predictor.config.image_size), top))


def latentry(*arguments: str | Path, **options) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "latentry", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def test_a_folder_is_answered_in_order_whatever_is_broken_in_it(predictor, toy_folder, tmp_path):
    folder = Path(shutil.copytree(toy_folder / "test", tmp_path / "images"))
    (folder / "cross" / "003.png").write_bytes(b"")
    (folder / "notes.txt").touch()
    rows = rows_of(predictor, folder)
    assert [row["file"] for row in rows] == [str(path) for path in sorted(folder.rglob("*.png"))]
    (broken,) = [row for row in rows if "problem" in row]
    assert broken == {"file": str(folder / "cross" / "003.png"), "problem": "it is empty"}
    (alone,) = rows_of(predictor, folder / "cross" / "004.png")
    assert alone["file"] == rows[24]["file"]
    assert [entry["probability"] for entry in alone["classes"]] == pytest.approx(
        [entry["probability"] for entry in rows[24]["classes"]], abs=1e-6
    )
    for row in rows:
        chances = [entry["probability"] for entry in row.get("classes", [])]
        assert chances == sorted(chances, reverse=True)
        assert not chances or sum(chances) == pytest.approx(1)


def test_more_files_than_a_batch_and_a_batch_of_broken_ones(predictor, tmp_path):
    for number in range(70):
        (tmp_path / f"{number:03}.png").write_bytes(b"")
    good = tmp_path / "zzz.png"
    shutil.copy(next(Path(__file__).parents[2].glob("docs/figures/*.png")), good)
    rows = rows_of(predictor, tmp_path)
    assert len(rows) == 71
    assert sum("problem" in row for row in rows) == 70
    assert rows[-1]["classes"]


def test_each_form_says_the_same(predictor, toy_folder):
    rows = rows_of(predictor, toy_folder / "test" / "cross", top=2)
    rows.append({"file": "bad, worse.png", "problem": "it is empty"})
    printed = {}
    for form in ("text", "csv", "json"):
        stream = io.StringIO()
        assert write_rows(rows, form, 2, stream) == (21, 1)
        printed[form] = stream.getvalue()
    assert [json.loads(line) for line in printed["json"].splitlines()] == rows
    table = list(csv.DictReader(io.StringIO(printed["csv"])))
    for row, entry in zip(rows, table, strict=True):
        assert entry["file"] == row["file"]
        if "problem" in row:
            assert (entry["class"], entry["problem"]) == ("", "it is empty")
            continue
        assert entry["class_2"] == row["classes"][1]["name"]
        assert float(entry["probability"]) == row["classes"][0]["probability"]
        assert entry["usual"] == str(row["usual"])
    assert printed["text"].splitlines()[-1] == "bad, worse.png  can't be read: it is empty"
    first = rows[0]["classes"][0]
    assert f"{first['name']} {100 * first['probability']:.1f} %" in printed["text"].splitlines()[0]


@pytest.mark.slow
def test_standard_input_is_an_image_or_a_list_of_files(finished_run, toy_folder, tmp_path):
    files = sorted((toy_folder / "test" / "circle").iterdir())
    listed = latentry("predict", finished_run, "-", "--json", input="\n".join(map(str, files)).encode())
    assert listed.returncode == 0, listed.stderr
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [row["file"] for row in rows] == [str(file) for file in files]
    piped = latentry("predict", finished_run, "-", "--json", input=files[0].read_bytes())
    row = json.loads(piped.stdout)
    assert row["file"] == "-"
    assert row["classes"][0]["probability"] == pytest.approx(rows[0]["classes"][0]["probability"], abs=1e-6)
    cut_off = latentry("predict", finished_run, "-", input=files[0].read_bytes()[:200])
    assert cut_off.returncode == 2
    assert b"the image on standard input can't be read: it is damaged or cut off" in cut_off.stderr
    names = [b"P1 front.png", b"BMW/1.jpg", b"RIFF.png", "Äpfel/1.png".encode(), b"nothing\0here", b"caf\xe9.png"]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    strange = latentry("predict", finished_run, "-", input=b"\n".join(names), env=strict)
    assert [line.split(b"  ")[0] for line in strange.stdout.splitlines()] == names
    assert b"6 of 6 images can't be read" in strange.stderr
    missing = latentry("predict", finished_run, tmp_path / "none.png")
    assert (missing.returncode, missing.stderr.count(b"\n")) == (2, 1)
    assert b"no image or folder" in missing.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_mistake(finished_run, toy_folder):
    command = f"{sys.executable} -m latentry predict {finished_run} {toy_folder}/train | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_latents_of_a_folder(predictor, toy_folder, tmp_path):
    folder = Path(shutil.copytree(toy_folder / "test", tmp_path / "images"))
    (folder / "cross" / "003.png").write_bytes(b"")
    out = tmp_path / "out" / "latents.npz"
    assert embed(predictor, folder, out) == (59, [(str(folder / "cross" / "003.png"), "it is empty")])
    with np.load(out, allow_pickle=False) as content:
        assert content["latents"].shape == (59, 128, 4, 4)
        name = str(content["files"][7])
        (_, picture), *_ = pictures_of(name, 32)
        assert content["latents"][7] == pytest.approx(predictor.answer(picture[None]).latents[0], abs=2e-2)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.png").touch()
    with pytest.raises(DataError, match=r"has no image that can be read; .*1\.png: it is empty"):
        embed(predictor, tmp_path / "broken", out)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no images: give an image"):
        embed(predictor, tmp_path / "none", out)
    for other in (Path("-"), folder / "cross" / "004.png"):
        with pytest.raises(DataError, match=r"no folder .*: give one with images"):
            embed(predictor, other, out)

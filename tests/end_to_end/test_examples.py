"""What README and docs show is run, cut short, on a second real dataset; what is of CIFAR-10 is read as a command."""

import csv
import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from latentry import cli, estimator, recipe
from latentry.data import cifar10
from latentry.studies import inspect

ROOT = Path(__file__).parents[2]
SHORT = {
    "pretrain.max_epochs": 1,
    "pretrain.min_steps_per_epoch": 15,
    "classify.max_epochs": 2,
    "classify.min_steps_per_epoch": 25,
    "classify.batch_size": 64,
}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language in a page of the docs."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The indented and fenced lines of a page that are latentry commands, as words; a backslash continues a line."""
    text = re.sub(r"\\\n\s*", "", (ROOT / page).read_text())
    lines = re.findall(r"^(?:    )?(latentry .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in, and recipes cut short."""
    if shutil.which("npm") is None:
        pytest.skip("the pictures come through npm")
    genuine = recipe.load_recipe

    def short(name: str, overrides: dict[str, Any] | None = None, limit: dict[str, int] | None = None) -> recipe.Recipe:
        overrides = overrides or {}
        few, small = dict.fromkeys(cifar10.CLASS_NAMES, 60), {}
        if "data.source" in overrides:
            few, small = {}, {"data.image_size": 16}
        return genuine(name, overrides | SHORT | small, few | (limit or {}) or None)

    for module in (recipe, inspect, estimator):
        monkeypatch.setattr(module, "load_recipe", short)
    monkeypatch.setitem(inspect.SETTINGS, "pretrain.min_steps_per_epoch", 10)
    monkeypatch.setitem(inspect.SETTINGS, "classify.max_epochs", 1)
    monkeypatch.setitem(inspect.SETTINGS, "classify.batch_size", 64)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "scripts" / "clothes.py"), "clothes", "--scale", "0.3"])
    runpy.run_path(sys.argv[0], run_name="__main__")
    return tmp_path


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    monkeypatch.setattr(sys, "argv", ["latentry", *words])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    output, errors = capfd.readouterr()
    assert not leaving.value.code, errors
    return output


@pytest.mark.slow
def test_the_tutorial_goes_the_whole_way(shortened, monkeypatch, capfd):
    lines = [line for block in blocks("docs/tutorial.md", "sh") for line in block.splitlines()]
    assert lines.pop(0) == "python scripts/clothes.py clothes"
    output = {}
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "latentry"
        output.setdefault(words[1], []).append(run(words[1:], monkeypatch, capfd))

    assert "could not be read: 2" in output["inspect"][0]
    content = json.loads((shortened / "inspections" / "images" / "inspection.json").read_text())
    assert content["counts"]["train"]["sandal"] == 12
    assert len(content["label_suspects"]) < 150
    results = json.loads((shortened / "runs" / "clothes" / "results.json").read_text())
    assert results["unlabelled_images"] == len(list((shortened / "clothes" / "unlabelled").iterdir())) > 500
    assert results["skipped"] == {"train": 2, "test": 0}
    assert results["test"]["accuracy"] > 0.4
    assert results["test"]["psnr"] > 10
    assert "2 pairs" in output["compare"][0]

    rows = list(csv.DictReader(output["predict"][0].splitlines()))
    right = [Path(row["file"]).parent.name == row["class"] for row in rows]
    assert np.mean(right) == pytest.approx(results["test"]["accuracy"], abs=0.01)
    assert np.mean([row["usual"] == "True" for row in rows]) > 0.9
    assert output["predict"][1].startswith("clothes/images/test/bag/0000.png  ")
    with np.load(shortened / "clothes-latents.npz", allow_pickle=False) as latents:
        assert len(latents["latents"]) == len(latents["files"]) == results["unlabelled_images"]


@pytest.mark.slow
def test_what_the_readme_shows_of_runs_does_what_it_says(shortened, monkeypatch, capfd):
    for stage in ("pretrain", "classify"):
        monkeypatch.setitem(SHORT, f"{stage}.min_steps_per_epoch", 5)
    monkeypatch.setitem(SHORT, "evaluate.views", 1)
    output = {}
    for words in commands("README.md"):
        if words[0] in ("train", "evaluate", "export", "predict") and "--minutes" not in words:
            words = ["clothes/images" if word == "DIR" else word for word in words]
            output[shlex.join(words)] = run(words, monkeypatch, capfd)
    assert len(output) == 7
    results = {path.parent.name: json.loads(path.read_text()) for path in Path("runs").glob("*/results.json")}
    assert results["quick-1"]["test"]
    assert not results["quick-0"].get("test")
    assert Path("runs/quick-0/model/model.onnx").exists()
    assert Path("runs/quick-0-2/control/results.json").exists()
    assert output["predict runs/quick-0 clothes/images --csv"].count("\n") > 100


@pytest.mark.slow
def test_the_examples_in_python_run(shortened, monkeypatch, capfd):
    monkeypatch.setitem(SHORT, "classify.min_steps_per_epoch", 12)
    names: dict[str, Any] = {}
    for block in blocks("docs/python.md", "python"):
        exec(block, names)
    assert names["results"]["test"]["accuracy"] > 0.2
    assert names["answer"].probabilities.shape == (4, 10)
    assert names["classifier"].score(names["digits"].images, names["digits"].target) > 0.9
    assert len(names["comparison"]["differences"]) == 2
    assert names["again"]["differences"] == names["comparison"]["differences"]
    exported, block = blocks("README.md", "python")
    assert "onnxruntime" in exported  # which tests of the export run, without torch
    exec(
        block.replace('"quick", {', '"quick", {"data.source": "clothes/images", ').replace("runs/mine", "runs/other"),
        names,
    )
    assert (shortened / "runs" / "other" / "report" / "index.html").exists()


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_command_that_is_shown_is_one(page):
    for words in commands(page):
        command, rest = typer.main.get_command(cli.app), ["0" if word == "SEED" else word for word in words]
        while hasattr(command, "resolve_command"):
            _, command, rest = command.resolve_command(typer.Context(command), rest)
        assert command.make_context(words[0], rest).params  # raises where a word is off


def test_commands_are_found_at_all():
    assert len(commands("README.md")) > 10
    assert len(commands("docs/tutorial.md")) == 7

"""scripts/variants.py: each way is trained once, and the table says what the runs do."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from latentry.recipe import load_recipe
from latentry.run import Run

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "variants.py"
SHORT = (
    *("--set", "model.autoencoder=seed2", "--set", "model.classifier=seed2", "--set", "pretrain.max_epochs=0"),
    *("--set", "classify.min_steps_per_epoch=4", "--seeds", "2"),
)
"""The smallest network."""


def run_script(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["variants.py", *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_ways_against_imbalance(toy_folder, tmp_path, monkeypatch, capsys):
    source = tmp_path / "images"
    shutil.copytree(toy_folder, source)
    for picture in sorted((source / "train" / "cross").iterdir())[12:]:
        picture.unlink()
    where = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    words = ("imbalance", "quick", "--set", f"data.source={source}", "--set", "data.limit={}", *SHORT, *where)
    words += ("--set", "classify.max_epochs=2")
    run_script(monkeypatch, *words)
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "results" / "imbalance-quick.json").read_text())
    assert len(content["ways"]) == 7
    assert all(len(runs) == 2 for runs in content["ways"].values())
    plain = [Run(tmp_path / "runs" / "imbalance-quick" / f"as-it-is-{seed}").results() for seed in range(2)]
    for results, found in zip(plain, content["ways"]["as it is"], strict=True):
        assert found["accuracy"] == results["validation"]["accuracy"]
        assert found["minority_recall"] == results["validation"]["per_class"][1]["recall"]
        assert found["flops"] == results["flops"]["classify"]
    adjusted = content["ways"]["logits adjusted afterwards"]
    for way, before in zip(adjusted, content["ways"]["as it is"], strict=True):
        assert way["minority_recall"] >= before["minority_recall"]
        assert way["ece"] != before["ece"]
    mean = 100 * np.mean([found["accuracy"] for found in content["ways"]["as it is"]])
    assert f"| as it is | {mean:.2f} ± " in printed
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("results.json")}
    run_script(monkeypatch, *words)
    assert capsys.readouterr().out == printed
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("results.json")}
    with pytest.raises(SystemExit, match="2"):
        run_script(monkeypatch, *words, "--set", "classify.logit_adjustment=0.5")
    assert "--set classify.logit_adjustment is what the ways of imbalance differ in" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run_script(monkeypatch, *words, "--seeds", "0")
    assert capsys.readouterr().err == "--seeds 0 makes no run: give 1 or more\n"
    with pytest.raises(SystemExit, match="2"):
        run_script(monkeypatch, *words, "--set", "classify.learning_rate=0.1")
    assert "was trained with other settings: choose another folder" in capsys.readouterr().err


def test_lengths_are_a_curve(toy_folder, tmp_path, monkeypatch, capsys):
    where = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    words = ("lengths", "quick", "--set", f"data.source={toy_folder}", "--set", "data.limit={}", *SHORT)
    run_script(monkeypatch, *words, "--set", "classify.min_steps_per_epoch=1", "--seeds", "1", *where)
    content = json.loads((tmp_path / "results" / "lengths-quick.json").read_text())
    costs = [runs[0]["flops"] for runs in content["ways"].values()]
    assert [cost / costs[0] for cost in costs] == [1, 2, 4, 8]
    assert f"| 8 epochs | {100 * content['ways']['8 epochs'][0]['accuracy']:.2f} |" in capsys.readouterr().out
    assert (tmp_path / "figures" / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_every_way_suits_the_flagship():
    studies = runpy.run_path(str(SCRIPT))["STUDIES"]
    base = load_recipe("flagship")
    for study, ways in studies.items():
        for way, settings in ways.items():
            changed = load_recipe("flagship", settings) != base
            assert changed or way in ("as it is", "balanced softmax"), (study, way)

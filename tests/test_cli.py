"""Mistakes on the command line: one line, exit code 2, nothing half-written."""

import json
import subprocess
import sys

import pytest

from latentry.cli import main


def latentry(*arguments: str, cwd=None, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "latentry", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "quik"], "no recipe called 'quik'; did you mean 'quick'?"),
        (["train", "--set", "classify.lerning_rate=1"], "did you mean 'learning_rate'?"),
        (["train", "--set", "seed"], "--set 'seed' is not of the form section.key=value"),
        (["train", "--data", "nowhere"], "nowhere: --data takes cifar10 or a folder"),
        (["train", "--data", "DATA", "--limit", "circle=41"], "--limit circle=41 is more than the 40 images of circle"),
        (["train", "--data", "DATA", "--limit", "square=3"], "'square'; the classes are circle, cross, stripes"),
        (["train", "--limit", "bird"], "--limit 'bird' is not of the form CLASS=N"),
        (["train", "--device", "abacus"], "device 'abacus' is not on this machine: use auto, cpu or cuda"),
        (["train", "--data", "DATA", "--set", "classify.freeze=block9"], "'block9' is no layer of the encoder"),
        (["train", "--data", "DATA", "--minutes", "0.001"], "--minutes 0.001 is too short: one epoch of each stage"),
        (["train", "--resume", "nowhere"], "no run folder nowhere"),
        (["train", "quick", "--resume", "nowhere"], "--resume takes recipe, data and seed from the run"),
        (["train", "--out", "."], "is not empty: choose another --out"),
        (["evaluate", "nowhere"], "no run folder nowhere"),
        (["evaluate", "."], "is not a run folder: it has no recipe.toml"),
        (["report", "nowhere"], "no run folder nowhere"),
        (["data", "cifar10", "--source", "nowhere"], "is not auto, official, npm"),
    ],
)
def test_mistakes_are_one_line_with_a_remedy(arguments, words, toy_folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "something").write_text("of the user's")
    arguments = [str(toy_folder) if argument == "DATA" else argument for argument in arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["latentry", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    output, errors = capfd.readouterr()
    assert left.value.code == 2
    assert words in errors
    assert errors.count("\n") == 1
    assert output == ""
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


@pytest.mark.slow
def test_a_damaged_run_is_named(toy_folder, tmp_path):
    small = ["--set", "pretrain.max_epochs=0", "--set", "classify.max_epochs=1", "--set", "classify.batch_size=64"]
    small += ["--set", "classify.reconstruction_weight=0"]
    done = latentry("train", "--data", str(toy_folder), *small, "--out", str(tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["validation"]["psnr"] is None  # no decoder was trained
    for name, damage in (
        ("predictions.npz", b"PK\x03\x04 no more"),
        ("results.json", b"{}"),
        ("recipe.toml", b"name = 'x'\nseed = -1"),
        ("metrics.csv", b"stage,epoch\nclassify,one\n"),
    ):
        file = tmp_path / "run" / name
        whole = file.read_bytes()
        file.write_bytes(damage)
        done = latentry("report" if name != "recipe.toml" else "evaluate", str(tmp_path / "run"))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), (name, done.stderr)
        file.write_bytes(whole)
    weights = tmp_path / "run" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = latentry("evaluate", str(tmp_path / "run"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "model.safetensors is missing or damaged" in done.stderr


def test_recipes_are_listed_and_shown():
    assert "quick" in latentry("recipes").stdout
    shown = latentry("recipes", "quick").stdout
    assert "[classify]" in shown
    assert "reconstruction_weight" in shown
    assert latentry("--version").stdout.strip()

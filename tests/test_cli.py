"""Mistakes on the command line: one line, exit code 2, nothing half-written."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latentry import __version__
from latentry.cli import main
from latentry.cli.options import parse_prior


def latentry(*arguments: str, cwd=None, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "latentry", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, **options)


def test_class_names_of_a_prior_may_hold_commas_and_equals_signs():
    assert parse_prior("red, blue=0.5,cat=0.1") == {"red, blue": 0.5, "cat": 0.1}
    assert parse_prior("a=b=0.25,,bird=.5,") == {"a=b": 0.25, "bird": 0.5}
    assert parse_prior("") == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "quik"], "no recipe called 'quik'; did you mean 'quick'?"),
        (["train", "--set", "classify.lerning_rate=1"], "did you mean 'learning_rate'?"),
        (["train", "--set", "seed"], "--set 'seed' is not of the form section.key=value"),
        (["train", "--data", "nowhere"], "nowhere: give cifar10, a folder with one folder"),
        (
            ["train", "--data", "DATA", "--limit", "circle=41"],
            "the limit circle=41 is more than the 40 images of circle",
        ),
        (["train", "--data", "DATA", "--limit", "square=3"], "'square'; the classes are circle, cross, stripes"),
        (["train", "--limit", "bird"], "--limit 'bird' is not of the form CLASS=N"),
        (["train", "--device", "abacus"], "device 'abacus' is not on this machine: use auto"),
        (["train", "--data", "DATA", "--set", "classify.freeze=block9"], "'block9' is no layer of the encoder"),
        (["train", "--data", "DATA", "--minutes", "0.001"], "--minutes 0.001 is too short: one epoch of each stage"),
        (["train", "--data", "DATA", "--minutes", "inf"], "--minutes inf is not a length of time"),
        (["train", "--data", "DATA", "--minutes", "-1"], "--minutes -1 is not a length of time"),
        (["train", "--seed", "x"], "Invalid value for '--seed'"),
        (["train", "--standing", "most"], "'most' is not one of"),
        (["trian"], "No such command 'trian'"),
        (["train", "--set", "data.image_size=64"], "data.image_size = 64, and CIFAR-10 has 32"),
        (["train", "--resume", "nowhere"], "no run folder nowhere"),
        (["train", "quick", "--resume", "nowhere"], "--resume takes recipe, data and seed from the run"),
        (["train", "--out", "."], "is not empty: choose another --out"),
        (["evaluate", "nowhere"], "no run folder nowhere"),
        (["evaluate", "."], "is not a run folder: it has no recipe.toml"),
        (["report", "nowhere"], "no run folder nowhere"),
        (["data", "cifar10", "--source", "nowhere"], "is not auto, official, npm"),
        (["data", "cifar10", "--source", "something"], "something is not a whole tar archive"),
        (["data"], "Missing command"),
        (["train", "--data", "DATA", "--image-size", "15"], "image_size"),
        (["train", "--data", "DATA", "--image-size", "257"], "image_size"),
        (["compare", "quick", "--labels", ""], "--labels '' is not a list of shares above 0 and up to 1"),
        (["predict", "nowhere", ".", "--prior", "bird"], "--prior 'bird' is not of the form CLASS=SHARE"),
        (["predict", "nowhere", ".", "--prior", "bird=much"], "--prior 'bird=much' is not of the form"),
    ],
)
def test_mistakes_are_one_line_with_a_remedy(arguments, words, toy_folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "something").write_text("of the user's")
    arguments = [str(toy_folder) if argument == "DATA" else argument for argument in arguments]
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    output, errors = capfd.readouterr()
    assert words in errors
    assert errors.count("\n") == 1
    assert output == ""
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def command(*arguments: str) -> int:
    """The exit code of the command line, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["latentry", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
    return left.value.code or 0


@pytest.mark.parametrize(
    ("name", "damage", "asked"),
    [
        ("predictions.npz", b"PK\x03\x04 no more", "report"),
        ("predictions.npz", b"", "report"),
        ("results.json", b"{}", "report"),
        ("results.json", b"[", "evaluate"),
        ("recipe.toml", b"name = 'x'\nseed = -1", "evaluate"),
        ("metrics.csv", b"stage,epoch\nclassify,one\n", "report"),
        ("metrics.csv", b"a,b\n", "report"),
        ("model/model.safetensors", b"\x10" * 200, "evaluate"),
        ("model/config.json", b'{"format_version": 99}', "evaluate"),
        ("model/config.json", b'{"format_version": 1}', "evaluate"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(name, damage, asked, finished_run, tmp_path, capfd):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / name).write_bytes(damage)
    assert command(asked, str(run)) == 2
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1, errors
    assert Path(name).name in errors or name == "model/config.json"


def test_a_network_far_larger_than_its_weights_takes_no_memory(finished_run, tmp_path, capfd):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = json.loads((run / "model" / "config.json").read_text())
    vast = {"autoencoder": "patches", "patch_side": 8, "patch_components": 192, "classifier": "dense"}
    (run / "model" / "config.json").write_text(json.dumps(config | {"network": vast, "image_size": 256}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert command("evaluate", str(run)) == 2
    assert "would give the dense layers 11,904,192 numbers, the limit is 262,144" in capfd.readouterr().err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000


def test_weights_that_were_altered_are_refused(finished_run, tmp_path, capfd):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    content = bytearray((run / "model" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "model" / "model.safetensors").write_bytes(content)
    assert command("evaluate", str(run)) == 2
    assert "is damaged (its weights do not match their hash)" in capfd.readouterr().err


def test_a_model_that_asks_for_code_is_refused_and_gets_none(finished_run, tmp_path, capfd):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = json.loads((run / "model" / "config.json").read_text())
    called = f"import pathlib\npathlib.Path({str(tmp_path / 'called')!r}).touch()\n"
    (run / "model" / "modeling.py").write_text(called)
    assert command("evaluate", str(run)) == 0
    (run / "model" / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Model"}}))
    assert command("predict", str(run), "-") == 2
    assert "auto_map: Extra inputs are not permitted" in capfd.readouterr().err
    assert not (tmp_path / "called").exists()


def test_recipes_are_listed_and_shown():
    assert "quick" in latentry("recipes").stdout
    shown = latentry("recipes", "quick").stdout
    assert "[classify]" in shown
    assert "reconstruction_weight" in shown
    assert latentry("--version").stdout.strip() == __version__

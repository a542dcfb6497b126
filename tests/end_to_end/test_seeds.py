"""The seeds' systems, cut to some hundred steps on CIFAR-10: their convolutions learn something."""

import runpy
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latentry.data import load_train
from latentry.data.split import Split, make_split
from latentry.inference import answers
from latentry.recipe import load_recipe
from latentry.run import Run
from latentry.training.job import Job
from latentry.training.stage import fit

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "seeds.py"


def cut(name: str, num_images: int, num_epochs: int, folder: Path, *, frozen: bool) -> tuple[float, float]:
    """Accuracy of the last epoch's training batches and of 2,000 held-out images; `frozen` holds convolutions still."""
    settings = {"data.standing": "held-out", "classify.max_epochs": num_epochs, "classify.schedule": "constant"}
    recipe = load_recipe(name, settings | {"classify.early_stopping_patience": 0})
    images = load_train(recipe.data)
    whole = make_split(images, recipe.data)
    draw = np.random.default_rng(0)
    split = Split(draw.permutation(whole.train)[:num_images], draw.permutation(whole.validation)[:2000])
    job = Job(recipe, images, split)
    network = job.network()
    for layer in network.modules():
        if frozen and isinstance(layer, nn.Conv2d):
            layer.requires_grad_(False)
    run = Run(folder / f"{name}-{frozen}")
    module = job.stage("classify", network, num_steps=1)
    fit(module, job.loader("classify"), None, run=run, device=job.device, precision=job.precision)
    asked = answers(network, images.images[split.validation], views=1, device=job.device, precision=job.precision)
    predictions = torch.cat([output.logits for output in asked]).argmax(dim=1).numpy()
    held_out = float((predictions == images.labels[split.validation]).mean())
    return run.metrics()[-1]["train_accuracy"], held_out


def test_seed2_beats_random_convolutions(tmp_path):
    trained, frozen = (cut("seed2", 36_125, 4, tmp_path, frozen=frozen)[1] for frozen in (False, True))
    assert trained > frozen + 0.1  # measured: 0.34 and 0.12


def test_seed1_cnn_beats_random_convolutions(tmp_path):
    # By its training batches, which are augmented and balanced: Keras' norms need some thousand steps before their
    # stored statistics, which held-out images are judged by, settle.
    trained, frozen = (cut("seed1-cnn", 16_000, 4, tmp_path, frozen=frozen)[0] for frozen in (False, True))
    assert trained > frozen + 0.03  # measured: 0.40 and 0.35


def test_the_script_runs_what_is_left_and_packs_it(toy_folder, tmp_path):
    settings = {
        "data.source": toy_folder,
        "pretrain.max_epochs": 1,
        "classify.max_epochs": 1,
        "pretrain.batch_size": 32,
        "classify.batch_size": 32,
    }
    cuts = [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]
    command = [sys.executable, SCRIPT, "all.tar.gz", "--repeats", "1", *cuts, "--only", "seed1-ae"]
    done = subprocess.run(
        [*command, "--only", "seed1-frozen11"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["seed1-ae-fold-0: done", "seed1-frozen11-fold-0: done"]
    assert "one pair" in done.stdout  # the verdict on its control
    assert "packed: all.tar.gz" in lines
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        names = archive.getnames()
    runs = ["seed1-ae-fold-0", "seed1-frozen11-fold-0", "seed1-frozen11-fold-0/control"]
    assert len(names) == 3 * 3 + 1
    assert {f"{run}/results.json" for run in runs} < set(names)
    lent, given = (Run(tmp_path / "runs" / run).results()["seconds"]["pretrain"] for run in runs[:2])
    assert lent == given  # it was charged with the autoencoder that it waited for
    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert again.stdout.startswith("seed1-ae-fold-0: done\n")
    log = (tmp_path / "runs" / "seed1-ae-fold-0.log").read_text()
    assert log.count("pretrain epoch 1/1") == 1
    other = [*command, "--set", "pretrain.max_epochs=2"]
    refused = subprocess.run(other, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 2
    assert "seed1-ae-fold-0 was trained with other settings: choose another --runs" in refused.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("seeds.py", ["nowhere/all.tar.gz"], "nowhere is no folder, so nowhere/all.tar.gz can't be written"),
        ("seeds.py", ["all.tar.gz", "--only", "seed9"], "--only seed9 is none of seed1-ae, "),
        ("rescore.py", ["runs/none"], "no run folder runs/none"),
        ("keep.py", ["kept", "runs/none"], "no run folder runs/none"),
        ("clothes.py", ["clothes", "--scale", "99"], "--scale 99 is not between 0.05 and 12"),
    ],
)
def test_a_script_says_in_a_line_what_it_cannot_do(script, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPT.with_name(script)), run_name="__main__")
    said = capsys.readouterr().err
    assert (left.value.code, said.count("\n")) == (2, 1)
    assert said.startswith(words)
    assert list(tmp_path.iterdir()) == []

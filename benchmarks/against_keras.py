"""Seed 1's steps beside the Keras original's: every ratio comes from this one run.

    python benchmarks/against_keras.py

Sets up an environment of its own with tensorflow-cpu in build/keras at the first run (1.6 GB), and measures both sides
in turn on random images in batches of 128: a training step of systems 2, 7 and 1, the augmentation, and the whole of
system 1 (an epoch as long as on the reference problem: augmentation, steps, and the engine around them). Nothing else
may run on the machine meanwhile.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from step import best_seconds

from latentry.data.imageset import ImageSet
from latentry.data.split import Split
from latentry.recipe import load_recipe
from latentry.run import Run
from latentry.runtime import autocast, hardware, resolve_precision
from latentry.settings import Augment
from latentry.training.job import Job
from latentry.training.optimizers import build_optimizer
from latentry.training.stage import fit

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / "build" / "keras"
PACKAGES = ("tensorflow-cpu==2.21.0", "keras==3.15.1", "scipy")
BATCH = 128
STEPS = {"autoencoder": 12, "frozen11": 20, "cnn": 60, "augmentation": 60, "whole": 332}
TITLES = {
    "autoencoder": "step of system 2 (autoencoder)",
    "frozen11": "step of system 7 (11 layers frozen)",
    "cnn": "step of system 1 (CNN)",
    "augmentation": "augmentation",
    "whole": "an epoch of system 1 as a whole",
}


def keras_python() -> Path:
    """The interpreter of the environment that has Keras, made where there is none."""
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        done.touch()
    return python


def keras_rate(system: str) -> float:
    """Images a second of the original."""
    command = [keras_python(), Path(__file__).with_name("keras_original.py"), system, str(STEPS[system])]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=quiet)
    return float(done.stdout.split()[-1])


def own_rate(system: str) -> float:
    """Images a second of ours."""
    num_images = STEPS[system] * BATCH
    return num_images / best_seconds(own_action(system, num_images))


def own_action(system: str, num_images: int) -> Callable[[], object]:
    """What is timed: `STEPS[system]` steps."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (num_images, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(num_images) % 10
    images = ImageSet(pixels, labels, tuple(f"class {number}" for number in range(10)))
    recipe = load_recipe(
        {"autoencoder": "seed1-ae-augmented", "frozen11": "seed1-control-frozen11"}.get(system, "seed1-cnn"),
        {"device": "cpu", "data.limit": {}, "pretrain.schedule": "constant", "classify.schedule": "constant"}
        | {"pretrain.early_stopping_patience": 0, "classify.early_stopping_patience": 0}
        | ({"classify.max_epochs": 1} if system == "whole" else {}),
    )
    job = Job(recipe, images, Split(np.arange(num_images), np.empty(0, dtype=np.int64)))
    stage = "pretrain" if system == "autoencoder" else "classify"
    loader = job.loader(stage)
    if system == "augmentation":
        return lambda: [None for _ in loader]
    if system == "whole":
        return lambda: trained(job, stage)
    loader.augment = Augment()
    batch = next(iter(loader))
    module = job.stage(stage, job.network(), num_steps=1)
    module.train()
    module.prepare()
    optimizer = build_optimizer((weight for part in module.trained() for weight in part.parameters()), module.settings)

    def step() -> None:
        with autocast(job.device, job.precision):
            loss = module.losses(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return lambda: [step() for _ in range(STEPS[system])]


def trained(job: Job, stage: str) -> None:
    """One epoch as a run trains it."""
    with tempfile.TemporaryDirectory() as folder:
        module = job.stage(stage, job.network(), num_steps=1)
        fit(module, job.loader(stage), None, run=Run(Path(folder)), device=job.device, precision=job.precision)


def main() -> None:
    keras_python()
    machine = hardware(torch.device("cpu"), resolve_precision("auto", torch.device("cpu")))
    print(f"{machine['name']}, {machine['threads']} threads, {machine['precision']}: torch {torch.__version__}")
    print(f"against {', '.join(PACKAGES[:2])} in fp32, its default\n")
    print(f"{'images a second':<38}{'Keras':>10}{'latentry':>12}{'ratio':>8}")
    for system, title in TITLES.items():
        theirs, ours = keras_rate(system), own_rate(system)
        print(f"{title:<38}{theirs:>10,.0f}{ours:>12,.0f}{ours / theirs:>8.2f}", flush=True)


if __name__ == "__main__":
    main()

"""What a training step costs and where it goes, and what an answer costs: every ratio comes from this one run.

    python benchmarks/step.py [RECIPE] [--images N]

Prints, for each stage of a recipe (`flagship`) on random images: images a second of a bare loop, the share of the
machine's measured matrix-product rate that it reaches, the share that loading and augmentation take, and what the
Trainer adds to a step. Then images a second that the network answers, how long a start takes, and the peak memory.
"""

import argparse
import functools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentry.data.imageset import ImageSet
from latentry.data.split import Split
from latentry.inference import answers
from latentry.recipe import load_recipe
from latentry.run import Run
from latentry.runtime import autocast, hardware
from latentry.training.flops import training_flops_per_image
from latentry.training.job import STAGES, Job
from latentry.training.optimizers import build_optimizer
from latentry.training.stage import fit

NUM_REPEATS = 3
COUNTS = (1, 64, 1000)
"""Of images that are answered at once."""
MATRIX_SIDE = 2048
EPOCH = {"max_epochs": 1, "min_steps_per_epoch": 0}
"""Each stage's, so that it visits each image once."""


def clock() -> float:
    """Seconds, once all that was asked of a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(action: Callable[[], object]) -> float:
    """How long one run takes."""
    started = clock()
    action()
    return clock() - started


def best_seconds(action: Callable[[], object]) -> float:
    """The shortest of a few runs, after one that doesn't count."""
    action()
    return min(seconds_of(action) for _ in range(NUM_REPEATS))


def matrix_rate(job: Job) -> float:
    """FLOP/s of a large matrix product in the run's precision."""
    kind = torch.bfloat16 if job.precision == "bf16" else torch.float32
    left, right = (torch.randn(MATRIX_SIDE, MATRIX_SIDE, device=job.device).to(kind) for _ in range(2))
    return 2 * MATRIX_SIDE**3 / best_seconds(lambda: left @ right)


def measure(job: Job, stage: str, rate: float) -> None:
    """Prints the numbers of one stage."""
    loader = job.loader(stage)
    module = job.stage(stage, job.network().to(job.device), len(loader))

    def loop() -> float:
        fresh = job.stage(stage, job.network().to(job.device), len(loader))
        fresh.prepare()
        optimizer = build_optimizer(fresh.network.parameters(), fresh.settings)
        started = clock()
        for batch in loader:
            with autocast(job.device, job.precision):
                loss = fresh.losses(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return clock() - started

    def trainer() -> float:
        with tempfile.TemporaryDirectory() as folder:
            fresh = job.stage(stage, job.network().to(job.device), len(loader))
            log = fit(fresh, loader, None, run=Run(Path(folder)), device=job.device, precision=job.precision)
        torch.use_deterministic_algorithms(False)  # which the Trainer asks for, and the bare loop does without
        return sum(row["seconds"] for row in log.rows)

    loop()
    # In turns, so that what else the machine does falls on both.
    pairs = [(loop(), trainer()) for _ in range(NUM_REPEATS)]
    bare, engine = (min(times) for times in zip(*pairs, strict=True))
    loading = best_seconds(lambda: [None for _ in loader])
    flops = training_flops_per_image(module, job.image_size) * len(loader) * loader.batch_size
    images = len(loader) * loader.batch_size
    print(f"\n{stage}: {flops / images / 1e9:.3f} GFLOP an image, batches of {loader.batch_size}")
    print(f"  bare loop                {images / bare:8,.0f} images/s")
    print(f"  of the matrix rate       {100 * flops / bare / rate:8.1f} %")
    print(f"  loading and augmentation {100 * loading / bare:8.1f} % of the bare loop")
    print(
        f"  the Trainer adds         {1000 * (engine - bare) / len(loader):8.2f} ms a step ({engine / bare:.3f} times)"
    )


def measure_answers(job: Job, images: np.ndarray) -> None:
    """Prints how many images a second are classified, by how many come at once."""
    network = job.network().to(job.device).eval()
    print("\nanswers, images a second:  one view  six views")
    for count in COUNTS:

        def seconds(views: int, some: np.ndarray = images[:count]) -> float:
            keywords: dict[str, Any] = {"views": views, "device": job.device, "precision": job.precision}
            return best_seconds(lambda: list(answers(network, some, decode=False, **keywords)))

        print(f"  {count:5,} at once          {count / seconds(1):10,.0f} {count / seconds(6):10,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", nargs="?", default="flagship")
    parser.add_argument("--images", type=int, default=5120, help="how many an epoch visits")
    options = parser.parse_args()
    name, num_images = options.recipe, options.images
    generator = np.random.default_rng(0)
    images = ImageSet(
        generator.integers(0, 256, (num_images, 3, 32, 32), dtype=np.uint8),
        generator.integers(0, 10, num_images),
        tuple(f"class {number}" for number in range(10)),
    )
    recipe = load_recipe(name, {"data.limit": {}})
    stages = [stage for stage in STAGES if getattr(recipe, stage).max_epochs]
    changes: dict[str, Any] = {"data.limit": {}, "pretrain.encoder_from": "", "pretrain.encoder_until": ""}
    changes |= {f"{stage}.{key}": value for stage in stages for key, value in EPOCH.items()}
    # Plateau watches validation images, and here are none.
    changes |= {f"{stage}.schedule": "constant" for stage in stages if getattr(recipe, stage).schedule == "plateau"}
    recipe = load_recipe(name, changes)
    job = Job(recipe, images, Split(np.arange(num_images), np.empty(0, dtype=np.int64)))
    rate = matrix_rate(job)
    machine = hardware(job.device, job.precision)
    print(f"{machine['name']}, {machine['threads']} threads, {machine['precision']}: torch {torch.__version__}")
    print(f"matrix product {rate / 1e9:,.0f} GFLOP/s")
    for stage in stages:
        measure(job, stage, rate)
    measure_answers(job, np.resize(images.images, (max(COUNTS), 3, 32, 32)))
    print()
    for words in ([sys.executable, "-c", "import latentry"], [sys.executable, "-m", "latentry", "--help"]):
        seconds = best_seconds(functools.partial(subprocess.run, words, check=True, capture_output=True))
        print(f"{' '.join(words[1:]):<25} {seconds:8.2f} s")
    print(f"peak memory {'':<13} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8,.0f} MiB")


if __name__ == "__main__":
    main()

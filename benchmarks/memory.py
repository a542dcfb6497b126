"""Peak memory and time of training on many image files: 100,000 of 64 pixels, made for the purpose.

    .venv/bin/python benchmarks/memory.py
    .venv/bin/python benchmarks/memory.py --images 10000

Makes JPEGs of ten classes in a temporary folder, decodes them into a cache of its own, trains `quick` for one
epoch of each stage with `--image-size 64`, and asks the model about all of them again with `predict`. Prints of
each command the most memory that was its own, the most that was resident (with the pages of mapped files, which the
system takes back when it needs them), and the seconds it took. Linux alone.
"""

import argparse
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64
NUM_CLASSES = 10
TRAINING = ("--image-size", str(SIZE), "--set", "pretrain.max_epochs=1", "--set", "classify.max_epochs=1")


def make(folder: Path, first: int, count: int) -> None:
    """Writes `count` pictures with details at several scales, their class in the mean colour."""
    generator = np.random.default_rng(first)
    for number in range(first, first + count):
        label = number % NUM_CLASSES
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.int16)
        picture = picture // 2 + 12 * label + generator.integers(0, 16, (SIZE, SIZE, 3))
        place = folder / f"class-{label}" / f"{number:06}.jpg"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(place, quality=85)


def measured(name: str, command: list[str], folder: Path) -> None:
    """Runs a command and prints what it took."""
    started = time.perf_counter()
    environment = os.environ | {"LATENTRY_CACHE": str(folder / "cache")}
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        status = Path(f"/proc/{process.pid}/status")
        own = resident = 0
        while process.poll() is None:
            found = dict(line.split(":", 1) for line in status.read_text().splitlines())
            own = max(own, int(found.get("RssAnon", "0 kB").split()[0]))
            resident = max(resident, int(found.get("VmHWM", "0 kB").split()[0]))
            time.sleep(0.2)
    if process.returncode:
        sys.exit((folder / f"{name}.log").read_text())
    seconds = time.perf_counter() - started
    print(
        f"{name:<10}{own / 2**20:7.2f} GiB of its own{resident / 2**20:7.2f} GiB resident{seconds:9.0f} s", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="how many; default 100,000")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label in range(NUM_CLASSES):
            (folder / "images" / f"class-{label}").mkdir(parents=True)
        starts = range(0, options.images, 1_000)
        with concurrent.futures.ProcessPoolExecutor() as pool:
            counts = [min(1_000, options.images - start) for start in starts]
            list(pool.map(make, [folder / "images"] * len(starts), starts, counts))
        print(f"{options.images:,} images of {SIZE} pixels, {os.cpu_count()} cores")
        latentry = [sys.executable, "-m", "latentry"]
        measured("train", [*latentry, "train", "--data", "images", *TRAINING, "--out", "run"], folder)
        measured("predict", [*latentry, "predict", "run", "images", "--csv"], folder)


if __name__ == "__main__":
    main()

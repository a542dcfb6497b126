"""How much faster two processes train than one, at one thread each.

    .venv/bin/python benchmarks/scaling.py

Trains `quick` on 4,250 of CIFAR-10's images by one process and by two of one thread each, for three epochs of each
stage, and compares the images a second of the last ones. Two threads of one process stand beside them.
"""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from latentry.data.cifar10 import CLASS_NAMES

NUM_IMAGES, NUM_EPOCHS = 500, 3
"""Of a class; of a stage."""


def rates(folder: Path, num_processes: int, num_threads: int) -> dict[str, float]:
    """Stage to images a second of its last epoch."""
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={num_processes}", "--rdzv-backend=c10d"]
    launch = [*launch, "--rdzv-endpoint=localhost:0"] if num_processes > 1 else []
    words = ["-m", "latentry", "train", "quick", "--out", str(folder)]
    for name in CLASS_NAMES:
        words += ["--limit", f"{name}={NUM_IMAGES}"]
    for stage in ("pretrain", "classify"):
        words += ["--set", f"{stage}.max_epochs={NUM_EPOCHS}", "--set", f"{stage}.min_steps_per_epoch=0"]
    environment = os.environ | {"OMP_NUM_THREADS": str(num_threads)}
    subprocess.run([sys.executable, *launch, *words], env=environment, check=True, capture_output=True)
    with (folder / "metrics.csv").open(newline="") as stream:
        return {row["stage"]: float(row["images_per_second"]) for row in csv.DictReader(stream)}


def main() -> None:
    print(f"{'processes':>9} {'threads of each':>16} {'pretrain':>10} {'classify':>10}   images/s")
    with tempfile.TemporaryDirectory() as folder:
        alone: dict[str, float] = {}
        for processes, threads in ((1, 1), (2, 1), (1, 2)):
            found = rates(Path(folder) / f"{processes}-{threads}", processes, threads)
            alone = alone or found
            factors = ", ".join(f"{stage} x{found[stage] / alone[stage]:.2f}" for stage in found)
            print(f"{processes:>9} {threads:>16} {found['pretrain']:>10.0f} {found['classify']:>10.0f}   {factors}")


if __name__ == "__main__":
    main()

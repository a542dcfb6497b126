"""Every system of the seeds at full length: five folds of seed 1, five seeds of seed 2, their controls and comparisons.

    python scripts/seeds.py seeds.tar.gz --parallel 6
    python scripts/seeds.py seeds.tar.gz --only seed1-cnn --set classify.max_epochs=20

Meant for a GPU, on which several runs go side by side; on a few cores give --parallel 1, and --only and --set to cut.
Runs go to runs/RECIPE-fold-N and runs/RECIPE-seed-N, the autoencoders and what reads them first; each opens the test
set once, at its end. Runs that are done are not run again, and what was stopped continues when the command is repeated.
The archive gets each run's recipe, metrics and results, and the comparisons.
"""

import argparse
import concurrent.futures
import dataclasses
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

NUM_FOLDS = 5
NUM_SEEDS = 5
KEPT = ("recipe.toml", "metrics.csv", "results.json")
FOLDED = {
    "seed1-ae": "",
    "seed1-frozen11": "seed1-ae",
    "seed1-ae-augmented": "",
    "seed1-frozen11-augmented": "seed1-ae-augmented",
    "seed1-control": "",
    "seed1-cnn": "",
    "seed1-frozen-augmented": "seed1-ae-augmented",
    "seed1-dense-augmented": "seed1-ae-augmented",
    "seed1-control-frozen11": "",
    "seed1-control-frozen": "",
    "seed1-ae-augmented-both": "",
}
"""Recipe to the recipe whose encoder it reads, in order of importance."""
SEEDED = ("seed2", "seed2-pretrained")
COMPARED = (
    ("seed1-frozen11-fold", "seed1-control-fold"),
    ("seed1-frozen11-fold", "seed1-cnn-fold"),
    ("seed1-frozen11-augmented-fold", "seed1-frozen11-fold"),
    ("seed2-seed", "seed2-pretrained-seed"),
)


@dataclasses.dataclass
class Task:
    """One run: how it is started, and the task that must be done before."""

    folder: Path
    arguments: list[str]
    after: "Task | None" = None
    done: threading.Event = dataclasses.field(default_factory=threading.Event)

    def run(self) -> None:
        """Trains and evaluates, as far as that isn't done; its words go to a log beside the folder."""
        if self.after is not None:
            self.after.done.wait()
        try:
            started = (self.folder / "recipe.toml").exists()
            how = ["--resume", str(self.folder)] if started else [*self.arguments, "--out", str(self.folder)]
            with self.folder.with_suffix(".log").open("a") as log:
                code = subprocess.run(
                    [sys.executable, "-m", "latentry", "train", *how, "--test"], stdout=log, stderr=log, check=False
                ).returncode
            print(f"{self.folder.name}: {'done' if code == 0 else f'stopped with {code}, see its log'}", flush=True)
        finally:
            self.done.set()


def planned(parent: Path, only: list[str], settings: list[str]) -> list[Task]:
    """All tasks, those that others wait for first."""
    changes = [argument for setting in settings for argument in ("--set", setting)]
    tasks: dict[str, Task] = {}
    for name, lender in FOLDED.items():
        for fold in range(NUM_FOLDS):
            arguments = [name, "--seed", str(fold), "--set", f"data.fold={fold}", *changes]
            source = tasks.get(f"{lender}-fold-{fold}")
            if lender:
                arguments += ["--set", f"pretrain.encoder_from={parent / f'{lender}-fold-{fold}'}"]
            if not only or name in only:
                tasks[f"{name}-fold-{fold}"] = Task(parent / f"{name}-fold-{fold}", arguments, source)
    for name in SEEDED:
        for seed in range(NUM_SEEDS):
            if not only or name in only:
                arguments = [name, "--seed", str(seed), *changes]
                tasks[f"{name}-seed-{seed}"] = Task(parent / f"{name}-seed-{seed}", arguments)
    return list(tasks.values())


def pack(archive: Path, parent: Path, tasks: list[Task]) -> None:
    """Writes the archive, complete or not at all."""
    partial = archive.with_name(archive.name + ".partial")
    with tarfile.open(partial, "w:gz") as tar:
        for task in tasks:
            for name in KEPT:
                if (task.folder / name).exists():
                    tar.add(task.folder / name, f"{task.folder.name}/{name}")
        for comparison in sorted((parent / "comparisons").glob("*/comparison.json")):
            tar.add(comparison, str(comparison.relative_to(parent)))
    partial.rename(archive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="the tar.gz to write")
    parser.add_argument("--parallel", type=int, default=6, help="runs side by side")
    parser.add_argument("--only", action="append", default=[], help="this recipe alone; repeatable")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="a setting of every run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs go")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    tasks = planned(options.runs, options.only, options.settings)
    with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
        for future in [pool.submit(task.run) for task in tasks]:
            future.result()
    for first, second in COMPARED:
        folder = options.runs / "comparisons" / f"{first}-{second}"
        sides = [str(options.runs / f"{side}-*") for side in (first, second)]
        if all(list(options.runs.glob(f"{side}-?")) for side in (first, second)):
            command = [sys.executable, "-m", "latentry", "compare", *sides, "--test", "--out", str(folder)]
            subprocess.run(command, check=False)
    pack(options.archive, options.runs, tasks)
    print(f"packed: {options.archive}")


if __name__ == "__main__":
    main()

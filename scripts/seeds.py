"""Every system of the seeds at full length: five folds of seed 1, five seeds of seed 2, their controls and comparisons.

    .venv/bin/python scripts/seeds.py seeds.tar.gz --parallel 6
    .venv/bin/python scripts/seeds.py seeds.tar.gz --only seed1-cnn --set classify.max_epochs=20

Meant for a GPU, on which several runs go side by side; on a few cores give --parallel 1, and --only and --set to cut.
Runs go to runs/RECIPE-fold-N and runs/RECIPE-seed-N, autoencoders and what matters most first; each opens the test
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

from latentry import files
from latentry.errors import LatentryError, RecipeError, RunError
from latentry.pipeline import resolved
from latentry.recipe import Recipe, load_recipe, parse_setting
from latentry.run import Run

KEPT = ("recipe.toml", "metrics.csv", "results.json")
FOLDED = {
    "seed1-ae": "",
    "seed1-ae-augmented": "",
    "seed1-frozen11": "seed1-ae",
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
CONTROLLED = ("seed1-frozen11",)
"""Recipes that are also trained without pretraining at equal cost, for a claim; seed2-pretrained has seed2."""
COMPARED = (
    ("seed1-frozen11-fold-?", "seed1-frozen11-fold-?/control"),
    ("seed1-frozen11-fold-?", "seed1-cnn-fold-?"),
    ("seed1-frozen11-fold-?", "seed1-control-fold-?"),
    ("seed1-frozen11-fold-?", "seed1-control-frozen11-fold-?"),
    ("seed1-control-fold-?", "seed1-cnn-fold-?"),
    ("seed1-frozen11-augmented-fold-?", "seed1-frozen11-fold-?"),
    ("seed1-frozen11-augmented-fold-?", "seed1-control-fold-?"),
    ("seed1-frozen-augmented-fold-?", "seed1-control-frozen-fold-?"),
    ("seed2-pretrained-seed-?", "seed2-seed-?"),
)


@dataclasses.dataclass
class Task:
    """One run: what it trains, and the task that must be done before."""

    folder: Path
    recipe: str
    settings: list[str]
    after: "Task | None" = None
    done: threading.Event = dataclasses.field(default_factory=threading.Event)
    failed: bool = True

    def wanted(self) -> Recipe:
        """The recipe as the run's folder will hold it."""
        return resolved(load_recipe(self.recipe, dict(map(parse_setting, self.settings))))

    def run(self) -> None:
        """Trains and evaluates, as far as that isn't done; its words go to a log beside the folder."""
        try:
            self.train()
        finally:
            self.done.set()
        print(f"{self.folder.name}: {'stopped, see its log' if self.failed else 'done'}", flush=True)

    def train(self) -> None:
        """Waits for its turn, then runs the command."""
        if self.after is not None:
            self.after.done.wait()
        settings = [word for text in self.settings for word in ("--set", text)]
        started = (self.folder / "recipe.toml").exists()
        how = ["--resume", str(self.folder)] if started else [self.recipe, *settings, "--out", str(self.folder)]
        with self.folder.with_suffix(".log").open("a") as log:
            command = [sys.executable, "-m", "latentry", "train", *how, "--test"]
            self.failed = subprocess.run(command, stdout=log, stderr=log, check=False).returncode != 0


def planned(parent: Path, num_repeats: int, only: list[str], common: list[str]) -> list[Task]:
    """All tasks, those that others wait for first."""
    tasks: dict[str, Task] = {}

    def add(name: str, label: str, settings: list[str], after: Task | None = None) -> None:
        if only and name not in only:
            return
        epochs = {stage: getattr(load_recipe(name), stage).max_epochs for stage in ("pretrain", "classify")}
        # A stage that a recipe leaves out stays out.
        skipped = {f"{stage}.max_epochs" for stage, count in epochs.items() if not count}
        settings += [text for text in common if parse_setting(text)[0] not in skipped]
        if name in CONTROLLED:
            settings.append("control=true")
        tasks[f"{name}-{label}"] = Task(parent / f"{name}-{label}", name, settings, after)

    for name, lender in FOLDED.items():
        for fold in range(num_repeats):
            settings = [f"seed={fold}", f"data.fold={fold}"]
            if lender:
                settings.append(f"pretrain.encoder_from={parent / f'{lender}-fold-{fold}'}")
            add(name, f"fold-{fold}", settings, tasks.get(f"{lender}-fold-{fold}"))
    for name in SEEDED:
        for seed in range(num_repeats):
            add(name, f"seed-{seed}", [f"seed={seed}"])
    return list(tasks.values())


def pack(archive: Path, parent: Path, tasks: list[Task]) -> None:
    """Writes the archive, complete or not at all."""
    with files.replacing(archive) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for task in tasks:
            for name in KEPT:
                for file in (task.folder / name, task.folder / "control" / name):
                    if file.exists():
                        tar.add(file, str(file.relative_to(parent)))
        for comparison in sorted((parent / "comparisons").glob("*/comparison.json")):
            tar.add(comparison, str(comparison.relative_to(parent)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="the tar.gz to write")
    parser.add_argument("--parallel", type=int, default=6, help="runs side by side")
    parser.add_argument("--repeats", type=int, choices=range(1, 6), default=5, help="folds of seed 1, seeds of seed 2")
    parser.add_argument("--only", action="append", default=[], help="this recipe alone; repeatable")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="a setting of every run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs go")
    options = parser.parse_args()
    try:
        if not options.archive.parent.is_dir():
            raise RunError(
                f"{options.archive.parent} is no folder, so {options.archive} can't be written: make it first"
            )
        if unknown := set(options.only) - {*FOLDED, *SEEDED}:
            raise RecipeError(f"--only {unknown.pop()} is none of {', '.join((*FOLDED, *SEEDED))}")
        options.runs.mkdir(parents=True, exist_ok=True)
        tasks = planned(options.runs, options.repeats, options.only, options.settings)
        for task in tasks:
            if (task.folder / "recipe.toml").exists() and Run.open(task.folder).recipe() != task.wanted():
                raise RunError(f"{task.folder} was trained with other settings: choose another --runs, or remove it")
    except LatentryError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    pool = concurrent.futures.ThreadPoolExecutor(options.parallel)
    try:
        for future in [pool.submit(task.run) for task in tasks]:
            future.result()
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True)
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(130)
    failed = any(task.failed for task in tasks)
    for first, second in COMPARED:
        sides = [str(options.runs / side) for side in (first, second)]
        if all(any(options.runs.glob(f"{side}/results.json")) for side in (first, second)):
            folder = options.runs / "comparisons" / f"{first}-{second}".replace("?", "").replace("/", "-")
            command = [sys.executable, "-m", "latentry", "compare", *sides, "--test", "--out", str(folder)]
            failed |= subprocess.run(command, check=False).returncode != 0
    pack(options.archive, options.runs, tasks)
    print(f"packed: {options.archive}")
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""The run folder: where everything that a run leaves has its place."""

import contextlib
import csv
import dataclasses
import datetime
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from latentry import files
from latentry.errors import RecipeError, RunError
from latentry.processes import place
from latentry.recipe import Recipe, parse_recipe, read_toml
from latentry.results import Results

LOCK, HOLDER = ".lock", ".holder"
METRICS = (
    "stage",
    "epoch",
    "steps",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "train_psnr",
    "validation_loss",
    "validation_accuracy",
    "validation_psnr",
    "seconds",
    "images_per_second",
)
"""The columns of `metrics.csv`."""
READ_METRIC: dict[str, Callable[[str], Any]] = {"stage": str, "epoch": int, "steps": int}


@dataclasses.dataclass(frozen=True)
class Run:
    """A folder `runs/NAME/` and the paths in it."""

    folder: Path

    @property
    def recipe_file(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def split_file(self) -> Path:
        return self.folder / "split.json"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def predictions_file(self) -> Path:
        return self.folder / "predictions.npz"

    @property
    def results_file(self) -> Path:
        return self.folder / "results.json"

    @property
    def neighbours_file(self) -> Path:
        """Where the training images lie in the hidden layer, once somebody has asked for neighbours."""
        return self.folder / "neighbours.npz"

    @property
    def skipped_file(self) -> Path:
        return self.folder / "skipped.csv"

    @property
    def model_folder(self) -> Path:
        return self.folder / "model"

    @property
    def report_folder(self) -> Path:
        return self.folder / "report"

    @property
    def report_file(self) -> Path:
        return self.report_folder / "index.html"

    @property
    def control(self) -> "Run":
        """The run beside this one of the same network without its autoencoder, where the recipe asks for it."""
        return Run(self.folder / "control")

    def checkpoints(self, stage: str) -> Path:
        """The folder of the checkpoints of "pretrain" or "classify"."""
        return self.folder / "checkpoints" / stage

    @property
    def pretrained_file(self) -> Path:
        """The autoencoder as pretraining left it."""
        return self.checkpoints("pretrain") / "autoencoder.safetensors"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing into the folder until the block ends, or this process, however it does.

        Of processes that train together the first holds it.

        Raises:
            RunError: another process holds it; says which.
        """
        if place().rank:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock, holder = FileLock(self.folder / LOCK), self.folder / HOLDER
        try:
            lock.acquire(timeout=0)
        except Timeout:
            try:
                who = holder.read_text(encoding="utf-8")
            except OSError:  # it has just begun, or is about to end
                who = "another process"
            raise RunError(f"{self.folder} is in use by {who}: wait until that has ended, or stop it") from None
        try:
            now = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
            files.write_text(holder, f"process {os.getpid()} on {platform.node()} since {now}")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    @staticmethod
    def check_free(folder: Path) -> None:
        """Raises RunError if `folder` holds something already."""
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file, and a run needs a folder: choose another --out")
        found = folder.iterdir() if folder.exists() else ()
        # A process that is killed at the very beginning leaves part of a file.
        if not all(path.name in (LOCK, HOLDER) or path.name.endswith(files.PARTIAL) for path in found):
            raise RunError(f"{folder} is not empty: choose another --out, or continue it with --resume {folder}")

    @classmethod
    def create(cls, folder: Path, recipe: Recipe) -> "Run":
        """Makes the folder, which must be free, and writes the resolved recipe into it."""
        cls.check_free(folder)
        run = cls(folder)
        files.write_text(run.recipe_file, recipe.to_toml())
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Returns the run in `folder`.

        Raises:
            RunError: there is no folder, or no run in it.
        """
        if not folder.is_dir():
            raise RunError(f"no run folder {folder}: `latentry train` makes one")
        run = cls(folder)
        if not run.recipe_file.is_file():
            raise RunError(f"{folder} is not a run folder: it has no recipe.toml")
        return run

    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            RunError: it is damaged.
        """
        try:
            return parse_recipe(read_toml(self.recipe_file))
        except RecipeError as error:
            raise RunError(f"{self.recipe_file} is damaged ({error}): restore it or train again") from None

    def results(self) -> dict[str, Any]:
        """What `results.json` holds.

        Raises:
            RunError: it is missing, so the run is not finished, or damaged.
        """
        if not self.results_file.exists():
            raise RunError(f"{self.folder} is not finished: continue it with `latentry train --resume {self.folder}`")
        try:
            return Results.model_validate(files.read_json(self.results_file)).model_dump()
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise RunError(f"{self.results_file} is damaged ({what}): restore it or train again") from None

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.csv`, numbers as numbers and empty cells as None; none where there is no file.

        Raises:
            RunError: it is damaged.
        """
        if not self.metrics_file.exists():
            return []
        files.check_size(self.metrics_file)
        try:
            with self.metrics_file.open(newline="", encoding="utf-8") as stream:
                return [
                    {key: READ_METRIC.get(key, float)(row[key]) if row[key] != "" else None for key in METRICS}
                    for row in csv.DictReader(stream)
                ]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise RunError(f"{self.metrics_file} is damaged ({error}): restore it or train again") from None

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replaces `metrics.csv`."""
        files.write_csv(self.metrics_file, METRICS, [[row[name] for name in METRICS] for row in rows])

    def write_skipped(self, rows: list[tuple[str, str, str]]) -> None:
        """Replaces the rows of `skipped.csv` that are of the same parts: part, file, and why it couldn't be read."""
        kept: list[Sequence[Any]] = []
        if self.skipped_file.exists():
            with (
                contextlib.suppress(csv.Error),  # of a damaged file what is whole is kept
                self.skipped_file.open(newline="", encoding="utf-8", errors="replace") as stream,
            ):
                reader = csv.reader(stream)
                next(reader, None)
                kept.extend(row for row in reader if row and row[0] not in {part for part, *_ in rows})
        files.write_csv(self.skipped_file, ("part", "file", "reason"), [*kept, *rows])

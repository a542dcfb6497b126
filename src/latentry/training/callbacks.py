"""What is written down and shown while a stage trains."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import Callback, EarlyStopping
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from latentry.progress import console, say
from latentry.run import METRICS, Run
from latentry.training.checkpoint import LAST

NUM_STEPS_BETWEEN_NOTES = 10


class EpochLog(Callback):
    """One row an epoch, kept in the checkpoint and written to `metrics.csv`.

    Because the rows travel with the checkpoint, a resumed run's file has each epoch once. Seconds are those of training
    and validating, not of what lay between a stop and going on.
    """

    def __init__(self, stage: str, run: Run) -> None:
        self.stage = stage
        self.run = run
        self.earlier = [row for row in run.metrics() if row["stage"] != stage]
        self.rows: list[dict[str, Any]] = []
        self.started_seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": time.perf_counter() - self.started_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self.started_seconds = time.perf_counter() - state_dict.get("seconds", 0.0)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started_seconds = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        seconds = time.perf_counter() - self.started_seconds
        loader = trainer.train_dataloader
        assert loader is not None
        values = trainer.callback_metrics | pl_module.means()
        metrics = {name: float(value) for name, value in values.items()}
        row = {
            "stage": self.stage,
            "epoch": trainer.current_epoch + 1,
            "steps": trainer.global_step,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": seconds,
            "images_per_second": len(loader) * loader.batch_size / seconds,
        }
        self.rows.append({column: row.get(column, metrics.get(column)) for column in METRICS})
        if trainer.is_global_zero:
            self.run.write_metrics(self.earlier + self.rows)
        say(_line(self.rows[-1], trainer.max_epochs or 0))


class StopAtSignal(Callback):
    """Ctrl-C and SIGTERM let the step under way end, keep a checkpoint and leave; a second Ctrl-C leaves at once.

    An epoch's validation that is under way is left, and begun anew by who goes on. Of several processes each leaves at
    once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = False
        self.steps = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if trainer.world_size > 1:  # the Trainer's own handler would wait for the others, who may be waiting for this
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.asked:
            raise KeyboardInterrupt

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.asked and not trainer.is_last_batch:
            pl_module.check_finite(batch_idx)
            self._leave(trainer, batch_idx + 1)

    def on_validation_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.asked:
            # A Trainer that goes on validates where a batch of validation had been started.
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.increment_started()
            self._leave(trainer, int(trainer.num_training_batches))

    def _leave(self, trainer: lightning.Trainer, steps: int) -> None:
        self.steps = steps
        trainer.save_checkpoint(self.folder / LAST)
        raise KeyboardInterrupt


class Stopping(EarlyStopping):
    """Early stopping that, resumed after it had stopped, stops at once."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class EpochProgress(Callback):
    """A bar of the epoch's steps on a terminal: loss, accuracy, images a second, time left."""

    def __init__(self, stage: str, num_epochs: int) -> None:
        self.stage = stage
        self.num_epochs = num_epochs
        self.task: TaskID | None = None
        self.started_seconds, self.first_step = 0.0, 0
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.task is None:
            loader = trainer.train_dataloader
            assert loader is not None
            self.progress.start()
            description = f"{self.stage} {trainer.current_epoch + 1}/{self.num_epochs}"
            self.task = self.progress.add_task(description, total=len(loader), completed=batch_idx, note="")
            self.started_seconds, self.first_step = time.perf_counter(), batch_idx

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.task is None or self.progress.disable:
            return
        num_images = (batch_idx + 1 - self.first_step) * len(batch.labels)
        rate = num_images / (time.perf_counter() - self.started_seconds)
        if batch_idx % NUM_STEPS_BETWEEN_NOTES == 0:
            accuracy = f", accuracy {float(outputs['accuracy']):.1%}" if "accuracy" in outputs else ""
            note = f"loss {float(outputs['loss']):.4f}{accuracy}, {rate:,.0f} images/s"
            self.progress.update(self.task, note=note)
        self.progress.advance(self.task)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._clear()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._clear()

    def _clear(self) -> None:
        self.progress.stop()
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None


def _line(row: dict[str, Any], num_epochs: int) -> str:
    parts = [f"{row['stage']} epoch {row['epoch']}/{num_epochs}"]
    for part in ("train", "validation"):
        if row[f"{part}_loss"] is None:
            continue
        words = f"{part} loss {row[f'{part}_loss']:.4f}"
        if row[f"{part}_accuracy"] is not None:
            words += f", accuracy {row[f'{part}_accuracy']:.2%}"
        if row[f"{part}_psnr"] is not None:
            words += f", PSNR {row[f'{part}_psnr']:.2f} dB"
        parts.append(words)
    parts.append(f"{row['images_per_second']:,.0f} images/s")
    return "; ".join(parts)

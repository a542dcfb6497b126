"""What pretraining and classifying share: one engine, the Lightning Trainer."""

import abc
import copy
import logging
import math
import signal
import threading
import warnings
from typing import Any, Self

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from latentry.batches.loader import Batch, Loader
from latentry.errors import DivergenceError, Interrupted
from latentry.models.network import AutoencoderClassifier
from latentry.processes import place
from latentry.run import Run
from latentry.runtime import Precision, derive_seed
from latentry.settings import Stage
from latentry.training.callbacks import EpochLog, EpochProgress, StopAtSignal, Stopping
from latentry.training.checkpoint import AtomicCheckpoints, loaded, newest
from latentry.training.optimizers import build_optimizer, build_plateau, step_schedule

NUM_STEPS_BETWEEN_CHECKS = 10


class StageModule(lightning.LightningModule, abc.ABC):
    """One stage of training `network`: subclasses give `losses` and the parameters that are `trained`.

    Every random draw comes from (seed, stage, epoch, step), so a run that resumes at any step draws the same.
    """

    name: str

    def __init__(self, network: AutoencoderClassifier, settings: Stage, *, seed: int, num_steps: int) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.seed = seed
        self.num_steps = num_steps
        self.plateau: ReduceLROnPlateau | None = None
        self.restored_plateau: dict[str, Any] | None = None
        self.unchecked: list[Tensor] = []
        self.totals: dict[str, Tensor] = {}

    @abc.abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars of a batch: "loss", which is minimised, and what else is worth a curve."""

    @abc.abstractmethod
    def trained(self) -> list[nn.Module]:
        """The parts whose parameters this stage may move."""

    def leaves_out(self) -> bool:
        """Whether the network has parameters that could be trained, and that this stage doesn't move."""
        moved = {id(parameter) for part in self.trained() for parameter in part.parameters()}
        return any(parameter.requires_grad and id(parameter) not in moved for parameter in self.network.parameters())

    def probe(self) -> Self:
        """A copy with a network of its own that trains alike, without the Trainer."""
        trainer, self._trainer = self._trainer, None
        try:
            copied = copy.deepcopy(self)
        finally:
            self._trainer = trainer
        copied.train()
        copied.prepare()
        return copied

    def settled(self) -> bool:
        """Whether the stage's last loss is already the one that is minimised."""
        return True

    def prepare(self) -> None:
        """Puts the network into the modes in which it trains."""
        self.network.train()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        parameters = [parameter for part in self.trained() for parameter in part.parameters()]
        optimizer = build_optimizer(parameters, self.settings)
        if self.settings.schedule == "plateau":
            self.plateau = build_plateau(optimizer, self.settings)
        if self.settings.schedule in ("one-cycle", "linear"):
            schedule = step_schedule(optimizer, self.settings, self.num_steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        return optimizer

    def on_train_epoch_start(self) -> None:
        self.totals.clear()
        self.prepare()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        mine = [self.global_rank] if self.global_rank else []  # each process draws its own noise and dropout
        torch.manual_seed(derive_seed(self.seed, self.name, "network", self.current_epoch, batch_idx, *mine))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        losses = self.losses(batch)
        for name, value in losses.items():
            # Not left to the Trainer's own means, which a checkpoint in the middle of an epoch doesn't hold.
            self.totals[name] = self.totals.get(name, 0.0) + value.detach()
        self.unchecked.append(losses["loss"].detach())
        # Reading a loss waits for the device, so it is done for several steps at once.
        if len(self.unchecked) == NUM_STEPS_BETWEEN_CHECKS or self.trainer.is_last_batch:
            self.check_finite(batch_idx)
        return losses

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if len(batch.labels):  # of a small last batch a process may have none
            values = {f"validation_{name}": value.detach() for name, value in self.losses(batch).items()}
            self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch.labels), sync_dist=True)

    def means(self) -> dict[str, Tensor]:
        """Of an epoch that has ended, over its batches, which are all of one size, and over the processes."""
        reduce, count = self.trainer.strategy.reduce, self.trainer.num_training_batches
        return {f"train_{name}": reduce(total / count, reduce_op="mean") for name, total in self.totals.items()}

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.means())
        # Before the checkpoint of the epoch is written, so that none holds what can't be used.
        loss = self.trainer.callback_metrics.get("validation_loss", torch.zeros(()))
        weights = (parameter for part in self.trained() for parameter in part.parameters())
        if not loss.isfinite() or not all(bool(weight.isfinite().all()) for weight in weights):
            raise self._diverged(f"stage {self.name} ended epoch {self.current_epoch + 1} with weights that fail")
        if self.plateau is not None:
            self.plateau.step(float(self.trainer.callback_metrics["validation_loss"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["totals"] = self.totals
        if self.plateau is not None:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.totals = checkpoint.get("totals", {})
        self.restored_plateau = checkpoint.get("plateau")

    def on_fit_start(self) -> None:
        # The Trainer makes the optimizer between loading a checkpoint and this.
        if self.plateau is not None and self.restored_plateau is not None:
            self.plateau.load_state_dict(self.restored_plateau)

    def check_finite(self, batch_idx: int) -> None:
        """Reads the losses that weren't yet, of which that of `batch_idx` is the last.

        Raises:
            DivergenceError: one is not finite.
        """
        if not self.unchecked:
            return
        values = torch.stack(self.unchecked).tolist()
        first_step = batch_idx + 1 - len(values)
        self.unchecked.clear()
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                place = f"epoch {self.current_epoch + 1}, step {first_step + offset + 1}"
                raise self._diverged(f"the loss of stage {self.name} became {value} in {place}")

    def _diverged(self, what: str) -> DivergenceError:
        rates = {"learning_rate": self.settings.learning_rate}
        if self.settings.optimizer == "muon":
            rates["rest_learning_rate"] = self.settings.rest_learning_rate
        return DivergenceError(
            f"{what}: lower " + " and ".join(f"{self.name}.{name} ({rate:g})" for name, rate in rates.items())
        )


class SettledCheckpoint(ModelCheckpoint):
    """Keeps no epoch from before the stage's last loss: it would be better by validation loss, and another network."""

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        if pl_module.settled():
            super().on_train_epoch_end(trainer, pl_module)


def fit(
    module: StageModule,
    train: Loader,
    validation: Loader | None,
    *,
    run: Run,
    device: torch.device,
    precision: Precision,
) -> EpochLog:
    """Trains `module.network` in place, from the stage's last checkpoint where the run has one.

    With validation the network ends with the weights of the best epoch by validation loss, otherwise with the last.
    Returns the log of epochs.

    Raises:
        DivergenceError: the loss is no longer finite; names the last good checkpoint.
        Interrupted: Ctrl-C or SIGTERM.
        RunError: a checkpoint is damaged.
    """
    folder = run.checkpoints(module.name)
    epoch_log = EpochLog(module.name, run)
    stopping = StopAtSignal(folder)
    trainer = _trainer(module, run, device, precision, [epoch_log, stopping], validates=validation is not None)
    module.train()
    module.prepare()
    resumed = newest(folder)
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    try:
        with warnings.catch_warnings():
            # Advice to people who write loaders and networks, not to those who train with them.
            warnings.filterwarnings("ignore", module=r"pytorch_lightning\.|lightning_fabric\.")
            trainer.fit(module, train, validation, ckpt_path=resumed, weights_only=True)
    except (SystemExit, SIGTERMException):
        # How the Trainer leaves after Ctrl-C and after SIGTERM.
        stopping.asked = True
    except DivergenceError as error:
        kept = newest(folder)
        where = f"the last good checkpoint is {kept}" if kept else "no epoch had ended: there is no checkpoint"
        raise DivergenceError(f"{error}; {where}") from None
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
    if stopping.asked:
        done = f"{len(epoch_log.rows)} of {module.settings.max_epochs} epochs"
        done += f" and {stopping.steps} of {len(train)} steps" if stopping.steps else ""
        raise Interrupted(f"stopped in {module.name} after {done}; continue with: latentry train --resume {run.folder}")
    if validation is not None:
        state = loaded(folder / "best.ckpt")["state_dict"]
        module.load_state_dict(state)
    module.to(device).eval()
    return epoch_log


def _trainer(
    module: StageModule,
    run: Run,
    device: torch.device,
    precision: Precision,
    callbacks: list[Callback],
    *,
    validates: bool,
) -> lightning.Trainer:
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # What is read before it is written would show as NaN, for a twentieth of a step's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    settings, processes = module.settings, place()
    alone = processes.world_size == 1
    callbacks.append(EpochProgress(module.name, settings.max_epochs))
    # The last in order is written last, so that it knows what the best was.
    for kind, name, monitor in ((SettledCheckpoint, "best", "validation_loss"), (ModelCheckpoint, "last", None)):
        if validates or monitor is None:
            callbacks.append(
                kind(
                    dirpath=run.checkpoints(module.name),
                    filename=name,
                    monitor=monitor,
                    save_on_train_epoch_end=True,
                    enable_version_counter=False,
                )
            )
    if settings.early_stopping_patience and validates:
        callbacks.append(Stopping("validation_loss", patience=settings.early_stopping_patience, check_finite=False))
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and alone else processes.local_world_size,
        num_nodes=processes.world_size // processes.local_world_size,
        strategy="auto" if alone else DDPStrategy(find_unused_parameters=module.leaves_out()),
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_epochs=settings.max_epochs,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        logger=_tensorboard(run, module.name),
        deterministic="warn",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=run.folder,
    )


def _tensorboard(run: Run, stage: str) -> Any:
    try:
        from pytorch_lightning.loggers import TensorBoardLogger

        return TensorBoardLogger(run.folder, name="tensorboard", version=stage)
    except ModuleNotFoundError:
        return False

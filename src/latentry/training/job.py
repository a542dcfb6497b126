"""A recipe on its images: everything that the two stages need, and the two stages."""

import functools

import numpy as np
import torch
from torch import Tensor

from latentry.batches.loader import Loader
from latentry.batches.sampling import class_weights, labelled, shares_in_training
from latentry.data.imageset import SMALLEST_DEVIATION, ImageSet
from latentry.data.split import Split
from latentry.errors import DataError, RecipeError, RunError
from latentry.models.network import AutoencoderClassifier, build_network
from latentry.models.patches import fit_patches, patch_moments
from latentry.models.saved import load_weights, save_weights
from latentry.processes import place
from latentry.progress import console, say, warn
from latentry.recipe import Recipe
from latentry.run import Run
from latentry.runtime import derive_seed, join, keep_freed_memory, resolve_device, resolve_precision
from latentry.settings import Augment
from latentry.training.budget import FORWARD_SHARE, epoch_seconds, fit_epochs
from latentry.training.classify import Classification
from latentry.training.flops import training_flops_per_image
from latentry.training.pretrain import Pretraining
from latentry.training.stage import StageModule, fit
from latentry.training.transfer import copy_encoder, lender

NUM_PATCH_IMAGES, PATCH_BATCH_SIZE = 5_000, 64
SOLVED_FROM_PATCHES = ("patches", "record")
"""The autoencoders whose first layer is solved in closed form."""
STAGES = ("pretrain", "classify")
SECONDS_BESIDE_TRAINING = 20.0
"""For start, decoding, t-SNE and the page, where a budget of minutes is divided."""


class Job:
    """A resolved recipe on its images: the network, the loaders and the stages that train it."""

    def __init__(self, recipe: Recipe, images: ImageSet, split: Split) -> None:
        self.recipe = recipe
        self.images = images
        self.split = split
        self.device = resolve_device(recipe.device)
        self.precision = resolve_precision(recipe.precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        elif place().world_size > 1:
            self.device = torch.device("cuda", place().local_rank)
        self.image_size = images.images.shape[-1]
        self.num_classes = len(images.class_names)
        self.counts = images.counts(split.train)
        mean, deviation = images.channel_statistics(split.train)
        if (deviation <= SMALLEST_DEVIATION).all():
            raise DataError("the training images are all of one and the same colour: look at the files")
        self.mean, self.deviation = torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
        if len(split.unlabelled) and recipe.batches.pretrain.balanced:
            raise RecipeError(
                f"batches.pretrain.balanced = true balances classes, and {len(split.unlabelled)} images have no label: "
                "leave one of them out"
            )
        processes = place().world_size
        for name in STAGES:
            size = getattr(recipe, name).batch_size
            if size % processes or len(split.train) < processes:
                raise RecipeError(
                    f"{processes} processes can't share batches of {name}.batch_size = {size} of {len(split.train)} "
                    "images evenly: make it a multiple of their number, or start fewer"
                )
        if 0 < len(split.validation) < processes:
            raise RecipeError(
                f"{processes} processes can't share {len(split.validation)} validation images: start fewer, or use "
                "--standing all-train"
            )
        self.lender = lender(recipe, images, split)
        # A class's name, a layer or a size that doesn't fit is found now, not after pretraining.
        self.stage("classify", self.network(), num_steps=1)

    def network(self) -> AutoencoderClassifier:
        """The network with the weights that it begins with: the run's seed draws them, or another run lends some."""
        torch.manual_seed(derive_seed(self.recipe.seed, "weights"))
        network = build_network(self.recipe.model, self.image_size, self.num_classes, self.mean, self.deviation)
        if self.recipe.model.autoencoder in SOLVED_FROM_PATCHES:
            fit_patches(network.encoder, network.decoder, self._patch_moments)
        if self.lender is not None:
            copy_encoder(self.lender, network, self.recipe.pretrain.encoder_until)
        return network

    @property
    def reads_unlabelled(self) -> bool:
        """Whether images without labels go into any weight, be it that of a first layer of patches."""
        solved = self.recipe.model.autoencoder in SOLVED_FROM_PATCHES
        return bool(self.recipe.pretrain.max_epochs or self.lender or solved)

    @functools.cached_property
    def _patch_moments(self) -> Tensor:
        """Of some training images, labelled or not, a few in memory at a time."""
        indices = np.concatenate([self.split.train, self.split.unlabelled])
        indices = np.sort(np.random.default_rng(0).permutation(indices)[:NUM_PATCH_IMAGES])
        parts = (indices[start : start + PATCH_BATCH_SIZE] for start in range(0, len(indices), PATCH_BATCH_SIZE))
        mean, deviation = (statistic.reshape(-1, 1, 1) for statistic in (self.mean, self.deviation))
        pixels = (torch.from_numpy(self.images.images[part]).float().div_(255) for part in parts)
        return patch_moments(((part - mean) / deviation for part in pixels), self.recipe.model.patch_side)

    @property
    def labelled(self) -> np.ndarray:
        """Indices of the images that an epoch of classifying visits: each once, or a share of each class repeated."""
        train, drawn = self.split.train, derive_seed(self.recipe.seed, "labels")
        visited: np.ndarray = train[labelled(self.images.labels[train], self.recipe.data.labels, drawn)]
        return visited

    def loader(self, stage: str, *, training: bool = True) -> Loader:
        """The batches of "pretrain" or "classify", of the training or of the validation part."""
        augment: Augment = getattr(self.recipe.batches, stage)
        indices = self.split.train if training else self.split.validation
        if training and stage == "pretrain":
            indices = np.concatenate([indices, self.split.unlabelled])
        if training and stage == "classify":
            indices = self.labelled
        return Loader(
            self.images,
            indices,
            getattr(self.recipe, stage).batch_size,
            augment if training or augment.validation else Augment(),
            stage=stage,
            seed=self.recipe.seed,
            device=self.device,
            training=training,
            original_target=stage == "pretrain" and self.recipe.pretrain.target == "original",
            min_steps=getattr(self.recipe, stage).min_steps_per_epoch if training else 0,
            rank=place().rank,
            num_processes=place().world_size,
        )

    def stage(self, name: str, network: AutoencoderClassifier, num_steps: int) -> StageModule:
        """The training module of "pretrain" or "classify"."""
        if name == "pretrain":
            return Pretraining(network, self.recipe.pretrain, seed=self.recipe.seed, num_steps=num_steps)
        return Classification(
            network,
            self.recipe.classify,
            seed=self.recipe.seed,
            num_steps=num_steps,
            class_weights=class_weights(self.recipe.classify.class_weight, self.counts),
            class_shares=shares_in_training(self.counts, balanced=False),
        )

    def trained_shares(self) -> tuple[float, ...]:
        """What share of the classifier's attention each class has; empty where none is trained."""
        if not self.recipe.classify.max_epochs:
            return ()
        settings = self.recipe.classify
        weights = class_weights(settings.class_weight, self.counts)
        balanced = self.recipe.batches.classify.balanced
        return shares_in_training(self.counts, weights, settings.logit_adjustment, balanced=balanced)

    def within(self, minutes: float) -> Recipe:
        """The recipe with the numbers of epochs that fit into `minutes` here; says what it chose."""
        seconds, image_seconds = dict.fromkeys(STAGES, 0.0), 0.0
        network = self.network().to(self.device)
        with console.status("Timing a few steps"):
            for name in seconds:
                if not getattr(self.recipe, name).max_epochs:
                    continue
                loader, module = self.loader(name), self.stage(name, network, num_steps=1)
                seconds[name] = epoch_seconds(module, loader, len(self.split.validation), self.precision)
                loader.release()
                forward_seconds = FORWARD_SHARE * seconds[name] / (len(loader) * loader.batch_size)
                image_seconds = max(image_seconds, forward_seconds)
        num_test = 10_000 if self.recipe.data.source == "cifar10" else len(self.split.validation)
        evaluated = (len(self.split.validation) + num_test) * self.recipe.evaluate.views
        recipe = fit_epochs(
            self.recipe,
            minutes,
            pretrain_seconds=seconds["pretrain"],
            classify_seconds=seconds["classify"],
            other_seconds=SECONDS_BESIDE_TRAINING + evaluated * image_seconds,
        )
        say(
            f"{minutes:g} minutes allow {recipe.pretrain.max_epochs} epochs of pretraining "
            f"({seconds['pretrain']:.1f} s each) and {recipe.classify.max_epochs} of classifying "
            f"({seconds['classify']:.1f} s each)" + ", and as much for the control" * recipe.control,
        )
        return recipe

    def train(self, run: Run) -> tuple[AutoencoderClassifier, dict[str, int]]:
        """Runs what is left of the stages in `run`; returns the network and the operations of each stage.

        Raises:
            RecipeError: the processes that train together have other images or settings.
        """
        # Muon takes bf16 wherever the processor has it.
        kind = resolve_precision("auto", self.device)
        join(self.device, f"{self.recipe.to_toml()}\n{self.images.sha256}\n{self.split.sha256}\n{kind}")
        network = self.network().to(self.device)
        flops = {"pretrain": self.lender.results()["flops"]["pretrain"] if self.lender else 0, "classify": 0}
        if self.recipe.pretrain.max_epochs:
            if _restored(run, network):
                flops["pretrain"] = self._flops(self.stage("pretrain", network, num_steps=1), run)
            else:
                flops["pretrain"] = self._fit("pretrain", network, run)
                if place().rank == 0:
                    save_weights(run.pretrained_file, network)
        if self.recipe.classify.max_epochs:
            flops["classify"] = self._fit("classify", network, run)
        return network.eval(), flops

    def planned_flops(self) -> dict[str, int]:
        """Operations of each stage if every epoch of the recipe is trained; a lender's pretraining counts."""
        epochs = {name: getattr(self.recipe, name).max_epochs for name in STAGES}
        flops = {name: count * self.epoch_flops(name) if count else 0 for name, count in epochs.items()}
        if self.lender is not None:
            flops["pretrain"] = self.lender.results()["flops"]["pretrain"]
        return flops

    def epoch_flops(self, name: str) -> int:
        """Operations of one epoch of "pretrain" or "classify"."""
        loader = self.loader(name)
        module = self.stage(name, self.network(), num_steps=1)
        return len(loader) * loader.batch_size * training_flops_per_image(module, self.image_size)

    def _fit(self, name: str, network: AutoencoderClassifier, run: Run) -> int:
        loader = self.loader(name)
        module = self.stage(name, network, getattr(self.recipe, name).max_epochs * len(loader))
        validation = self.loader(name, training=False) if len(self.split.validation) else None
        fit(module, loader, validation, run=run, device=self.device, precision=self.precision)
        for used in filter(None, (loader, validation)):
            used.release()
        return self._flops(module, run)

    def _flops(self, module: StageModule, run: Run) -> int:
        rows = [row for row in run.metrics() if row["stage"] == module.name]
        if not rows:
            raise RunError(f"{run.metrics_file} lacks stage {module.name}: remove {run.folder}/checkpoints and resume")
        num_images = int(rows[-1]["steps"]) * self.loader(module.name).batch_size
        return num_images * training_flops_per_image(module, self.image_size)


def _restored(run: Run, network: AutoencoderClassifier) -> bool:
    """Fills `network` with the autoencoder that pretraining left; False where there is none, or a damaged one."""
    if not run.pretrained_file.exists():
        return False
    try:
        load_weights(run.pretrained_file, network)
    except RunError as error:
        warn(f"{str(error).partition(':')[0]}: taking the last checkpoint of pretraining")
        return False
    return True

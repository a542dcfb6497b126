"""The whole way of the data, in order: split, pretrain, classify, validate."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentry import files
from latentry.batches.loader import Loader
from latentry.data import check_test, load_train
from latentry.data.imageset import ImageSet
from latentry.data.split import Split, make_split
from latentry.errors import RunError
from latentry.evaluation.evaluate import (
    Measured,
    first_of_each_class,
    measure,
    save_predictions,
    scores,
)
from latentry.inference import fit_temperature
from latentry.models.network import AutoencoderClassifier, build_network, latent_shape
from latentry.progress import console
from latentry.recipe import Augment, Recipe
from latentry.run import Run
from latentry.runtime import derive_seed, hardware, resolve_device, resolve_precision, versions
from latentry.training.budget import FORWARD_SHARE, epoch_seconds, fit_epochs
from latentry.training.callbacks import read_rows
from latentry.training.checkpoint import FORMAT_VERSION, ModelConfig, load_weights, save_model, save_weights
from latentry.training.classify import Classification
from latentry.training.flops import inference_flops_per_image, training_flops_per_image
from latentry.training.pretrain import Pretraining
from latentry.training.stage import StageModule, fit

SECONDS_BESIDE_TRAINING = 20.0
"""For start, decoding, t-SNE and the page, where a budget of minutes is divided."""
NUM_SAMPLES_PER_CLASS = 2


def train(recipe: Recipe, folder: Path, *, minutes: float | None = None, will_test: bool = False) -> Run:
    """Trains `recipe` into the new run `folder`; `minutes` replaces its numbers of epochs by what fits.

    `will_test` makes sure beforehand that there are test images to open afterwards; it doesn't open them.

    Raises:
        LatentryError: of whichever kind tells what to mend.
    """
    Run.check_free(folder)
    recipe = resolved(recipe)
    temperature = borrowed_temperature(recipe)
    if will_test:
        check_test(recipe.data)
    images = load_train(recipe.data)
    split = make_split(images, recipe.data)
    job = Job(recipe, images, split, temperature)
    if minutes is not None:
        job = Job(job.within(minutes), images, split, temperature)
    run = Run.create(folder, job.recipe)
    files.write_json(run.split_file, {"dataset_sha256": images.sha256} | split.to_json())
    job.finish(run)
    return run


def resume(folder: Path) -> Run:
    """Continues the run in `folder` to its end; a finished run is returned as it is.

    Raises:
        RunError: the folder is no run, is damaged, or its data has changed.
    """
    run = Run.open(folder)
    files.remove_partial(folder)
    if run.results_file.exists():
        run.results()
        return run
    recipe = run.recipe()
    images = load_train(recipe.data)
    split = make_split(images, recipe.data)
    if run.split_file.exists():
        stored = files.read_json(run.split_file)
        if Split.from_json(stored).sha256 != split.sha256 or stored.get("dataset_sha256") != images.sha256:
            raise RunError(f"the images of {recipe.data.source} are not those that {folder} began with: restore them")
    else:
        files.write_json(run.split_file, {"dataset_sha256": images.sha256} | split.to_json())
    Job(recipe, images, split, borrowed_temperature(recipe)).finish(run)
    return run


def resolved(recipe: Recipe) -> Recipe:
    """`recipe` with this machine's device and precision, and with paths that hold from any folder."""
    device = resolve_device(recipe.device)
    source, lender = recipe.data.source, recipe.evaluate.temperature_from
    if source != "cifar10":
        source = str(Path(source).resolve())
    if lender:
        lender = str(Path(lender).resolve())
    return recipe.model_copy(
        update={
            "device": str(device),
            "precision": resolve_precision(recipe.precision, device),
            "data": recipe.data.model_copy(update={"source": source}),
            "evaluate": recipe.evaluate.model_copy(update={"temperature_from": lender}),
        }
    )


def borrowed_temperature(recipe: Recipe) -> float:
    """The temperature of `evaluate.temperature_from`, 1 where that is empty.

    Raises:
        RunError: that is no finished held-out run of the same recipe.
    """
    lender = recipe.evaluate.temperature_from
    if not lender:
        if recipe.data.standing == "all-train":
            console.print("probabilities will not be calibrated: evaluate.temperature_from names no held-out run")
        return 1.0
    results = Run.open(Path(lender)).results()
    if results["validation"] is None or results["recipe"] != recipe.name:
        raise RunError(
            f"{lender} is a {results['standing']} run of {results['recipe']}, and evaluate.temperature_from needs a "
            f"held-out run of {recipe.name}"
        )
    return float(results["temperature"])


class Job:
    """A resolved recipe on its images: the network, the loaders and the stages that train it."""

    def __init__(self, recipe: Recipe, images: ImageSet, split: Split, temperature: float) -> None:
        self.recipe = recipe
        self.images = images
        self.split = split
        self.temperature = temperature
        self.device = resolve_device(recipe.device)
        self.precision = resolve_precision(recipe.precision, self.device)
        self.image_size = images.images.shape[-1]
        self.num_classes = len(images.class_names)
        mean, deviation = images.channel_statistics(split.train)
        self.mean, self.deviation = torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
        # A layer or a size that doesn't fit is found now, not after pretraining.
        self.stage("classify", self.network(), num_steps=1)

    def network(self) -> AutoencoderClassifier:
        """The network with the first weights that the run's seed gives it."""
        torch.manual_seed(derive_seed(self.recipe.seed, "weights"))
        return build_network(self.recipe.model, self.image_size, self.num_classes, self.mean, self.deviation)

    def loader(self, stage: str, *, training: bool = True) -> Loader:
        """The batches of "pretrain" or "classify", of the training or of the validation part."""
        augment: Augment = getattr(self.recipe.batches, stage)
        return Loader(
            self.images,
            self.split.train if training else self.split.validation,
            getattr(self.recipe, stage).batch_size,
            augment if training or augment.validation else Augment(),
            stage=stage,
            seed=self.recipe.seed,
            device=self.device,
            training=training,
            original_target=stage == "pretrain" and self.recipe.pretrain.target == "original",
        )

    def stage(self, name: str, network: AutoencoderClassifier, num_steps: int) -> StageModule:
        """The training module of "pretrain" or "classify"."""
        if name == "pretrain":
            return Pretraining(network, self.recipe.pretrain, seed=self.recipe.seed, num_steps=num_steps)
        return Classification(network, self.recipe.classify, seed=self.recipe.seed, num_steps=num_steps)

    def within(self, minutes: float) -> Recipe:
        """The recipe with the numbers of epochs that fit into `minutes` here; says what it chose."""
        seconds = {"pretrain": 0.0, "classify": 0.0}
        network = self.network().to(self.device)
        with console.status("Timing a few steps"):
            for name in ("pretrain", "classify") if self.recipe.pretrain.max_epochs else ("classify",):
                module = self.stage(name, network, 1)
                seconds[name] = epoch_seconds(module, self.loader(name), len(self.split.validation), self.precision)
        image_seconds = seconds["classify"] / len(self.split.train) * FORWARD_SHARE
        num_test = 10_000 if self.recipe.data.source == "cifar10" else len(self.split.validation)
        evaluated = (len(self.split.validation) + num_test) * self.recipe.evaluate.views
        recipe = fit_epochs(
            self.recipe,
            minutes,
            pretrain_seconds=seconds["pretrain"],
            classify_seconds=seconds["classify"],
            other_seconds=SECONDS_BESIDE_TRAINING + evaluated * image_seconds,
        )
        console.print(
            f"{minutes:g} minutes allow {recipe.pretrain.max_epochs} epochs of pretraining "
            f"({seconds['pretrain']:.1f} s each) and {recipe.classify.max_epochs} of classifying "
            f"({seconds['classify']:.1f} s each)",
            highlight=False,
        )
        return recipe

    def finish(self, run: Run) -> None:
        """Runs what is left of the stages, then validates, and writes predictions, model and results."""
        network = self.network().to(self.device)
        flops: dict[str, int] = {}
        if self.recipe.pretrain.max_epochs:
            weights = run.checkpoints("pretrain") / "autoencoder.safetensors"
            if weights.exists():
                load_weights(weights, network)
                flops["pretrain"] = self._flops(self.stage("pretrain", network, 1), run)
            else:
                flops["pretrain"] = self._fit("pretrain", network, run)
                save_weights(weights, network)
        flops["classify"] = self._fit("classify", network, run)

        started = time.perf_counter()
        measured = self._measure(network) if len(self.split.validation) else None
        if measured is not None:
            self.temperature = fit_temperature(measured.logits, measured.arrays["labels"])
            arrays = {f"validation_{name}": array for name, array in measured.arrays.items()}
        else:
            arrays = {}
        save_predictions(run, arrays | self._train_examples())
        validation_seconds = time.perf_counter() - started
        config = ModelConfig(
            format_version=FORMAT_VERSION,
            class_names=self.images.class_names,
            image_size=self.image_size,
            network=self.recipe.model,
            mean=tuple(self.mean.tolist()),
            deviation=tuple(self.deviation.tolist()),
            views=self.recipe.evaluate.views,
            temperature=self.temperature,
        )
        save_model(run.model_folder, network, config)
        files.write_json(run.results_file, self._results(run, network, measured, flops, validation_seconds))

    def _fit(self, name: str, network: AutoencoderClassifier, run: Run) -> int:
        loader = self.loader(name)
        module = self.stage(name, network, getattr(self.recipe, name).max_epochs * len(loader))
        validation = self.loader(name, training=False) if len(self.split.validation) else None
        fit(module, loader, validation, run=run, device=self.device, precision=self.precision)
        return self._flops(module, run)

    def _flops(self, module: StageModule, run: Run) -> int:
        rows = [row for row in read_rows(run.metrics_file) if row["stage"] == module.name]
        if not rows:
            raise RunError(f"{run.metrics_file} lacks stage {module.name}: remove {run.folder}/checkpoints and resume")
        loader_batch = min(module.settings.batch_size, len(self.split.train))
        num_images = int(rows[-1]["steps"]) * loader_batch
        return num_images * training_flops_per_image(module, self.image_size)

    def _measure(self, network: AutoencoderClassifier) -> Measured:
        return measure(
            network,
            self.images,
            self.split.validation,
            views=self.recipe.evaluate.views,
            device=self.device,
            precision=self.precision,
            part="validation",
        )

    def _train_examples(self) -> dict[str, np.ndarray]:
        positions = first_of_each_class(self.images.labels[self.split.train], NUM_SAMPLES_PER_CLASS)
        indices = self.split.train[positions]
        return {
            "train_example_images": self.images.images[indices],
            "train_example_labels": self.images.labels[indices],
        }

    def _results(
        self,
        run: Run,
        network: AutoencoderClassifier,
        measured: Measured | None,
        flops: dict[str, int],
        validation_seconds: float,
    ) -> dict[str, Any]:
        recipe, names = self.recipe, self.images.class_names
        rows = read_rows(run.metrics_file)
        trained_decoder = recipe.pretrain.max_epochs > 0 or recipe.classify.reconstruction_weight > 0
        pretrained = [row for row in rows if row["stage"] == "pretrain" and row["validation_loss"] is not None]
        best = min(pretrained, key=lambda row: float(row["validation_loss"]), default=None)

        def seconds(stage: str) -> float:
            return float(sum(row["seconds"] for row in rows if row["stage"] == stage))

        def count(part: torch.nn.Module) -> int:
            return sum(parameter.numel() for parameter in part.parameters())

        return {
            "recipe": recipe.name,
            "standing": recipe.data.standing,
            "seed": recipe.seed,
            "train_images": self.images.counts(self.split.train),
            "dataset_sha256": self.images.sha256,
            "split_sha256": self.split.sha256,
            "seconds": {
                "pretrain": seconds("pretrain"),
                "classify": seconds("classify"),
                "validation": validation_seconds,
            },
            "flops": {
                "pretrain": flops.get("pretrain", 0),
                "classify": flops["classify"],
                "inference_per_image": inference_flops_per_image(network, self.image_size, recipe.evaluate.views),
            },
            "network": {
                "image": list(self.images.images.shape[1:]),
                "latent": list(latent_shape(network.cpu().encoder, self.image_size)),
                "parameters": {
                    "encoder": count(network.encoder),
                    "decoder": count(network.decoder),
                    "classifier": count(network.classifier),
                },
            },
            "trained_decoder": trained_decoder,
            "pretrained_validation_psnr": best["validation_psnr"] if best else None,
            "temperature": self.temperature,
            "versions": versions(),
            "hardware": hardware(self.device, self.precision),
            "validation": None
            if measured is None
            else scores(measured, names, self.temperature, has_decoder=trained_decoder),
            "test": None,
        }

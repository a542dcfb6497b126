"""The whole way of the data, in order: split, pretrain, classify, validate; then the same for a control."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentry import files
from latentry.batches.sampling import shares_in_training
from latentry.data import check_test, load_train
from latentry.data.imageset import ImageSet
from latentry.data.split import LARGEST_SPLIT_BYTES, Split, make_split
from latentry.errors import RecipeError, RunError, continued_with
from latentry.evaluation.calibration import Calibration, borrowed_calibration, calibrated
from latentry.evaluation.evaluate import first_of_each_class, measure, note_skipped, save_predictions, scores
from latentry.inference import log_ratio
from latentry.models.network import AutoencoderClassifier, latent_shape
from latentry.models.saved import FORMAT_VERSION, ModelConfig, save_model
from latentry.processes import place
from latentry.progress import say
from latentry.recipe import Recipe
from latentry.run import Run
from latentry.runtime import hardware, resolve_device, resolve_precision, versions
from latentry.training.flops import inference_flops_per_image
from latentry.training.job import STAGES, Job

NUM_SAMPLES_PER_CLASS = 2


def train(recipe: Recipe, folder: Path, *, minutes: float | None = None, will_test: bool = False) -> Run:
    """Trains `recipe` into the new run `folder`; `minutes` replaces its numbers of epochs by what fits, a control too.

    `will_test` makes sure beforehand that there are test images to open afterwards; it doesn't open them.

    Raises:
        LatentryError: of whichever kind tells what to mend.
    """
    processes = place()
    if processes.world_size > 1 and (minutes is not None or recipe.control):
        raise RecipeError(
            f"{processes.world_size} processes train one run of a fixed length: leave out --minutes and --control"
        )
    if processes.num_restarts and Run(folder).recipe_file.exists():
        return resume(folder)
    if processes.rank == 0:
        Run.check_free(folder)
    recipe = resolved(recipe)
    if minutes is not None and not 0 < minutes < math.inf:
        raise RecipeError(f"--minutes {minutes:g} is not a length of time: give a number such as 10")
    if minutes is not None and recipe.control and recipe.pretrain.encoder_from:
        raise RecipeError(
            f"--minutes {minutes:g} can't hold a control of {recipe.name}, which is also given the operations that "
            "pretrain.encoder_from took: leave out --minutes or --control"
        )
    if will_test:
        check_test(recipe.data)
    images = load_train(recipe.data)
    return train_on(images, recipe, folder, borrowed_calibration(recipe, images), minutes=minutes)


def train_on(
    images: ImageSet,
    recipe: Recipe,
    folder: Path,
    calibration: Calibration,
    *,
    minutes: float | None = None,
    split: Split | None = None,
) -> Run:
    """As `train`, of a resolved recipe whose images are at hand; a `split` stands in for the one the recipe makes."""
    split = split or make_split(images, recipe.data)
    job = Job(recipe, images, split)
    if minutes is not None:
        job = Job(job.within(minutes), images, split)
    run = Run(folder)
    with run.locked():
        if place().rank == 0:
            Run.create(folder, job.recipe)
            files.write_json(run.split_file, {"dataset_sha256": images.sha256} | split.to_json())
        finish(job, run, calibration)
    if recipe.control:
        train_control(run)
    return run


def resume(folder: Path) -> Run:
    """Continues the run in `folder` to its end; a finished run is returned as it is.

    Raises:
        RunError: the folder is no run, is damaged, or its data has changed.
    """
    run = Run.open(folder)
    recipe = run.recipe()
    with run.locked():
        if run.results_file.exists():
            run.results()
        else:
            continue_stages(run, recipe)
    if recipe.control:
        train_control(run)
    return run


def continue_stages(run: Run, recipe: Recipe) -> None:
    """Runs what is left of an unfinished run.

    Raises:
        RunError: the images are no longer those that it began with.
    """
    images = load_train(recipe.data)
    split = make_split(images, recipe.data)
    if run.split_file.exists():
        stored = files.read_json(run.split_file, LARGEST_SPLIT_BYTES)
        if Split.from_json(stored).sha256 != split.sha256 or stored.get("dataset_sha256") != images.sha256:
            raise RunError(
                f"the images of {recipe.data.source} are not those that {run.folder} began with: restore them"
            )
    elif place().rank == 0:
        files.write_json(run.split_file, {"dataset_sha256": images.sha256} | split.to_json())
    finish(Job(recipe, images, split), run, borrowed_calibration(recipe, images))


def train_control(run: Run) -> Run:
    """Trains the control of a finished run into `control/` of its folder, as far as it isn't trained yet.

    Raises:
        RunError: the images are no longer those of the run.
    """
    control, results = run.control, run.results()
    recipe = unpretrained(run.recipe())
    with continued_with(f"latentry train --resume {run.folder}"):
        if control.recipe_file.exists():
            return resume(control.folder)
        images = load_train(recipe.data)
        split = make_split(images, recipe.data)
        check_same_images(run, images, split)
        total = results["flops"]["pretrain"] + results["flops"]["classify"]
        say(f"control: {run.folder.name} without its autoencoder, at equal cost")
        recipe = at_cost(Job(recipe, images, split), total)
        return train_on(images, recipe, control.folder, borrowed_calibration(recipe, images), split=split)


def check_same_images(run: Run, images: ImageSet, split: Split) -> None:
    """Raises RunError if a finished run was trained on other images or another split of them."""
    results = run.results()
    if (results["dataset_sha256"], results["split_sha256"]) != (images.sha256, split.sha256):
        raise RunError(f"{run.folder} was trained on images that its source holds no more: restore them, or repeat it")


def unpretrained(recipe: Recipe) -> Recipe:
    """The control of `recipe`: its encoder and classifier trained throughout from random weights on the labels alone.

    A first layer of patches, which is solved from the images and never trained, is the same in both.

    Raises:
        RecipeError: it trains no autoencoder, or no classifier.
    """
    if not recipe.has_control:
        raise RecipeError(f"{recipe.name} trains no autoencoder or no classifier, so it has no control: name another")
    return recipe.changed(
        {
            "name": f"{recipe.name}-control",
            "description": f"{recipe.name} without its autoencoder: not pretrained, no reconstruction.",
            "control": False,
            "pretrain.max_epochs": 0,
            "pretrain.encoder_from": "",
            "pretrain.encoder_until": "",
            "classify.freeze": "",
            "classify.reconstruction_weight": 0.0,
            "evaluate.temperature_from": "",
        }
    )


def at_cost(job: Job, total: int) -> Recipe:
    """The job's recipe with as many epochs of classifying as make `total` operations, to the nearest."""
    pretraining = job.planned_flops()["pretrain"]
    epochs = max(1, round((total - pretraining) / job.epoch_flops("classify")))
    return job.recipe.changed({"classify.max_epochs": epochs})


def resolved(recipe: Recipe) -> Recipe:
    """`recipe` with this machine's device and precision, and with paths that hold from any folder."""
    device = resolve_device(recipe.device)
    source = recipe.data.source
    if source != "cifar10":
        source = str(Path(source).absolute())  # a table may be a link, and names files beside the link
    lender, encoder, unlabelled = (
        str(Path(name).resolve()) if name else ""
        for name in (recipe.evaluate.temperature_from, recipe.pretrain.encoder_from, recipe.data.unlabelled)
    )
    return recipe.changed(
        {
            "device": str(device),
            "precision": resolve_precision(recipe.precision, device),
            "data.source": source,
            "data.unlabelled": unlabelled,
            "pretrain.encoder_from": encoder,
            "evaluate.temperature_from": lender,
        }
    )


def finish(job: Job, run: Run, calibration: Calibration) -> None:
    """Runs what is left of the stages, then validates, and writes predictions, model and results.

    `calibration` is for a run without validation images; with them it is fitted.
    """
    network, flops = job.train(run)
    if place().rank:
        return
    recipe, images, split = job.recipe, job.images, job.split
    started = time.perf_counter()
    arrays = train_examples(images, split)
    class_shares = shares_in_training(job.counts, balanced=False)
    measured = None
    if len(split.validation):
        measured = measure(
            network,
            images,
            split.validation,
            views=recipe.evaluate.views,
            device=job.device,
            precision=job.precision,
            part="validation",
        )
        calibration = calibrated(measured, recipe, log_ratio(class_shares, job.trained_shares()))
        arrays |= {f"validation_{name}": array for name, array in measured.arrays.items()}
    save_predictions(run, arrays)
    validation_seconds = time.perf_counter() - started
    config = ModelConfig(
        format_version=FORMAT_VERSION,
        class_names=images.class_names,
        image_size=job.image_size,
        network=recipe.model,
        mean=tuple(network.mean.flatten().tolist()),
        deviation=tuple(network.deviation.flatten().tolist()),
        views=recipe.evaluate.views,
        temperature=calibration.corrected_temperature,
        class_shares=class_shares,
        trained_shares=job.trained_shares(),
        usual_error=calibration.usual_error,
    )
    save_model(run.model_folder, network, config)
    content = describe(job, run, network, flops) | {
        "trained_decoder": recipe.trains_decoder,
        "trained_classifier": recipe.classify.max_epochs > 0,
        "temperature": calibration.temperature,
        "validation": None,
        "test": None,
    }
    if measured is not None:
        content["validation"] = scores(measured, images.class_names, content)
    content["seconds"]["validation"] = validation_seconds
    note_skipped(run, content, "train", images)
    files.write_json(run.results_file, content)


def train_examples(images: ImageSet, split: Split) -> dict[str, np.ndarray]:
    """The training images that a report shows."""
    indices = split.train[first_of_each_class(images.labels[split.train], NUM_SAMPLES_PER_CLASS)]
    return {"train_example_images": images.images[indices], "train_example_labels": images.labels[indices]}


def describe(job: Job, run: Run, network: AutoencoderClassifier, flops: dict[str, int]) -> dict[str, Any]:
    """What `results.json` says of a run beside how well it did."""
    recipe, rows = job.recipe, run.metrics()
    pretrained = [row for row in rows if row["stage"] == "pretrain" and row["validation_loss"] is not None]
    best = min(pretrained, key=lambda row: float(row["validation_loss"]), default=None)
    pretrained_psnr = best["validation_psnr"] if best else None
    seconds = {name: float(sum(row["seconds"] for row in rows if row["stage"] == name)) for name in STAGES}
    if job.lender is not None:
        lent = job.lender.results()
        pretrained_psnr, seconds["pretrain"] = lent["pretrained_validation_psnr"], lent["seconds"]["pretrain"]

    def count(part: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in part.parameters())

    return {
        "recipe": recipe.name,
        "standing": recipe.data.standing,
        "seed": recipe.seed,
        "train_images": job.counts,
        "labelled_images": len(np.unique(job.labelled)) if recipe.classify.max_epochs else 0,
        "unlabelled_images": len(job.split.unlabelled) if job.reads_unlabelled else 0,
        "dataset_sha256": job.images.sha256,
        "split_sha256": job.split.sha256,
        "seconds": seconds,
        "flops": flops
        | {"inference_per_image": inference_flops_per_image(network, job.image_size, recipe.evaluate.views)},
        "network": {
            "image": list(job.images.images.shape[1:]),
            "latent": list(latent_shape(network.cpu().encoder, job.image_size)),
            "parameters": {
                "encoder": count(network.encoder),
                "decoder": count(network.decoder),
                "classifier": count(network.classifier),
            },
        },
        "pretrained_validation_psnr": pretrained_psnr,
        "versions": versions(),
        "hardware": hardware(job.device, job.precision),
    }

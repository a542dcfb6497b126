"""From a run to `predictions.npz` and `results.json`. The one place where test labels are read."""

import dataclasses
import functools
import time
import zipfile
from typing import Any

import numpy as np
import torch

from latentry import files
from latentry.data import load_test
from latentry.data.imageset import ImageSet
from latentry.errors import DataError, RunError
from latentry.evaluation import metrics
from latentry.evaluation.paired import Pair
from latentry.inference import answers, probabilities
from latentry.models.network import AutoencoderClassifier
from latentry.models.saved import load_model
from latentry.recipe import Recipe
from latentry.run import Run
from latentry.runtime import Precision, resolve_device, resolve_precision
from latentry.training.losses import psnr

NUM_MISTAKES = 12
LARGEST_GROWTH = 20
"""How many times its size `predictions.npz` may unpack to: it is hardly compressed, if at all."""
KINDS = {
    "indices": (1, "i"),
    "labels": (1, "i"),
    "logits": (2, "f"),
    "latents": (4, "f"),
    "psnr": (1, "f"),
    "example_positions": (1, "i"),
    "example_images": (4, "u"),
    "example_reconstructions": (4, "u"),
    "example_labels": (1, "i"),
}
"""How many dimensions the arrays of a part in `predictions.npz` have, and NumPy's letter for their kind of number."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What asking a network about a part of the data gave.

    Attributes:
        arrays: what `predictions.npz` keeps of the part, without its prefix; "logits" is float32 of shape (N, K),
            "psnr" (N,), dB.
        ssim: mean over images.
    """

    arrays: dict[str, np.ndarray]
    ssim: float

    @property
    def errors(self) -> np.ndarray:
        """Mean squared error of each image's reconstruction, (N,), of pixels in [0, 1]."""
        errors: np.ndarray = 10 ** (-self.arrays["psnr"] / 10)
        return errors


def measure(
    network: AutoencoderClassifier,
    images: ImageSet,
    indices: np.ndarray,
    *,
    views: int,
    device: torch.device,
    precision: Precision,
    part: str,
) -> Measured:
    """Asks `network` about the images at `indices`."""
    ask = functools.partial(answers, network, views=views, device=device, precision=precision)
    logits, latents, psnrs, ssims = [], [], [], []
    pixels, labels = images.images[indices], images.labels[indices]
    start = 0
    for output in ask(pixels, description=f"Evaluating {part}"):
        originals = torch.from_numpy(pixels[start : start + len(output.logits)]).float().div_(255)
        start += len(originals)
        logits.append(output.logits.numpy())
        latents.append(output.latent.half().numpy())
        psnrs.append(psnr(output.reconstruction, originals))
        ssims.append(metrics.ssim(output.reconstruction, originals))
    all_logits = np.concatenate(logits)
    shown = example_positions(all_logits, labels)
    reconstructions = torch.cat([output.reconstruction for output in ask(pixels[shown])])
    arrays = {
        "indices": indices,
        "labels": labels,
        "logits": all_logits,
        "latents": np.concatenate(latents),
        "psnr": torch.cat(psnrs).numpy(),
        "example_positions": shown,
        "example_images": pixels[shown],
        "example_reconstructions": reconstructions.mul(255).round().byte().numpy(),
    }
    return Measured(arrays, float(torch.cat(ssims).mean()))


def example_positions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which images a report shows: the first of each class, and the most confident mistakes."""
    return np.concatenate([first_of_each_class(labels, 1), confident_mistakes(logits, labels)])


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of the first `count` of each class, class by class."""
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)])


def confident_mistakes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions of the wrong predictions, the most confident first, at most 12."""
    chances = probabilities(logits, 1.0)
    confidence = chances.max(axis=1)
    wrong = np.flatnonzero(chances.argmax(axis=1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:NUM_MISTAKES]


def scores(measured: Measured, class_names: tuple[str, ...], results: dict[str, Any]) -> dict[str, Any]:
    """The `validation` or `test` object of `results`; what the run didn't train is null."""
    classified: dict[str, Any] = dict.fromkeys(metrics.CLASSIFICATION_METRICS)
    if results["trained_classifier"]:
        chances = probabilities(measured.arrays["logits"], results["temperature"])
        classified = metrics.classification_metrics(measured.arrays["labels"], chances, class_names)
    return classified | {
        "psnr": float(measured.arrays["psnr"].mean()) if results["trained_decoder"] else None,
        "ssim": measured.ssim if results["trained_decoder"] else None,
    }


def note_skipped(run: Run, results: dict[str, Any], part: str, images: ImageSet) -> None:
    """Counts in `results` the files of "train" or "test" that couldn't be read, and lists them in `skipped.csv`."""
    results["skipped"] = results.get("skipped", {}) | {part: len(images.skipped)}
    if images.skipped:
        run.write_skipped([(part, *entry) for entry in images.skipped])


def save_predictions(run: Run, arrays: dict[str, np.ndarray]) -> None:
    """Adds `arrays` to `predictions.npz`."""
    content = load_predictions(run) if run.predictions_file.exists() else {}
    with files.replacing(run.predictions_file) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **(content | arrays))


def load_predictions(run: Run, part: str = "") -> dict[str, np.ndarray]:
    """The arrays of `predictions.npz`; with `part` ("validation" or "test") its logits, labels and indices alone.

    Raises:
        RunError: it is missing or damaged.
    """
    file = run.predictions_file
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_GROWTH * file.stat().st_size:
                raise ValueError
        with np.load(file, allow_pickle=False) as content:
            names = [f"{part}_{name}" for name in ("logits", "labels", "indices")] if part else content.files
            arrays = {name: content[name] for name in names if name in content}
        _check_fit(arrays)
        return arrays
    except Exception:  # noqa: BLE001 - zipfile, zlib and NumPy raise half a dozen kinds on a damaged file
        raise RunError(f"{run.predictions_file} is missing or damaged: restore it or train again") from None


def _check_fit(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError or KeyError where arrays of `predictions.npz` are of other shapes than one another's."""
    for part in ("train", "validation", "test"):
        own = {name.removeprefix(f"{part}_"): array for name, array in arrays.items() if name.startswith(f"{part}_")}
        if any((array.ndim, array.dtype.kind) != KINDS[name] for name, array in own.items()):
            raise ValueError
        for shown in (True, False):
            if len({len(array) for name, array in own.items() if name.startswith("example_") is shown}) > 1:
                raise ValueError
        count, num_classes = own["logits"].shape if "logits" in own else (0, 0)
        for name, end in (("labels", num_classes), ("example_positions", count)):
            if count and name in own and not ((own[name] >= 0) & (own[name] < end)).all():
                raise ValueError


def pair_of(first: Run, second: Run, part: str) -> Pair:
    """The predictions of two finished runs on their "validation" or "test" images.

    Raises:
        RunError: a file is damaged, or the two were asked about other images.
    """
    asked = [load_predictions(run, part) for run in (first, second)]
    try:
        same = all(
            np.array_equal(asked[0][f"{part}_{name}"], asked[1][f"{part}_{name}"]) for name in ("indices", "labels")
        )
        predictions = [content[f"{part}_logits"].argmax(axis=1) for content in asked]
        labels = asked[0][f"{part}_labels"]
    except KeyError as error:
        raise RunError(f"{first.folder} or {second.folder} has no {part} predictions ({error})") from None
    if part == "test":
        hashes = {run.results().get("test_sha256") for run in (first, second)} - {None}
        same = same and len(hashes) <= 1
    if not same:
        raise RunError(f"{first.folder} and {second.folder} were asked about other {part} images: use the same split")
    return Pair(labels, *predictions)


def evaluate(run: Run) -> dict[str, Any]:
    """Opens the test set, once, for a run and its control; returns the run's results, a second time the stored ones.

    Raises:
        RunError: the run is unfinished or damaged.
        DataError: the data is missing, or has no test images.
    """
    results, recipe = run.results(), run.recipe()
    if recipe.control and run.control.results_file.exists():
        evaluate(run.control)
    if results["test"] is not None:
        return results
    with run.locked():
        return _opened(run, recipe)


def _opened(run: Run, recipe: Recipe) -> dict[str, Any]:
    """What the run's results are once the test set is opened."""
    results = run.results()
    if results["test"] is not None:  # by another process, meanwhile
        return results
    network, config = load_model(run.model_folder)
    test = load_test(recipe.data)
    if test.class_names != config.class_names:
        raise DataError(
            f"the test images have the classes {', '.join(test.class_names)}, and the model knows "
            f"{', '.join(config.class_names)}: restore the folder"
        )
    started = time.perf_counter()
    device = resolve_device("cpu" if recipe.device == "cpu" else "auto")
    measured = measure(
        network.to(device),
        test,
        np.arange(len(test)),
        views=config.views,
        device=device,
        precision=resolve_precision(recipe.precision, device),
        part="test",
    )
    results["test"] = scores(measured, config.class_names, results)
    results["test_sha256"] = test.sha256
    note_skipped(run, results, "test", test)
    results["seconds"]["test"] = time.perf_counter() - started
    save_predictions(run, {f"test_{name}": array for name, array in measured.arrays.items()})
    files.write_json(run.results_file, results)
    return results

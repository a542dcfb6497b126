"""A look at a dataset before it is trained on: what is there, what is there twice, what is odd, what is mislabelled."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from latentry import files
from latentry.data import load_test_pixels, load_train
from latentry.data.imageset import UNLABELLED, ImageSet
from latentry.data.listing import PARTS
from latentry.data.split import Split
from latentry.deploy.predictor import Predictor
from latentry.errors import DataError, continued_with
from latentry.evaluation.calibration import Calibration
from latentry.evaluation.labels import confident_errors
from latentry.evaluation.similar import near_duplicates
from latentry.models.network import latent_shape
from latentry.models.saved import load_model
from latentry.pipeline import resolved, train_on
from latentry.progress import say
from latentry.recipe import Recipe, load_recipe
from latentry.settings import Data

RECIPE = "quick"
SETTINGS = {
    "pretrain.max_epochs": 2,
    "pretrain.min_steps_per_epoch": 50,
    "classify.max_epochs": 4,
    "classify.min_steps_per_epoch": 25,
    "classify.batch_size": 128,
    "classify.reconstruction_weight": 0.0,
}
"""What is changed in the recipe: a look needn't be as good as a run."""
NUM_FOLDS = 3
DUPLICATE_SIMILARITY = 0.6
"""Chosen by eye, on pairs of CIFAR-10's images."""
NUM_BELOW = 12
NUM_WORST = 12
COPIED_AT_ONCE = 1_000


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found, and the images that it is about.

    Attributes:
        content: what `inspection.json` holds; its tables name images by place: those of training, then the test's.
        pictures: place to image, uint8 (3, S, S), of every image that the content names.
    """

    content: dict[str, Any]
    pictures: dict[int, np.ndarray]


def inspect(data: Data, *, seed: int = 0) -> Inspection:
    """Looks at the images of `data`: counts, near-duplicates, the worst reconstructed, likely wrong labels.

    A small autoencoder is trained on them, and a classifier on each of three parts for its labels. Test images are
    looked at for duplicates, without their labels, and the content says so.

    Raises:
        DataError: the data can't be read, or a class has too few images to look for wrong labels.
    """
    train = load_train(data)
    name, count = min(train.counts().items(), key=lambda item: item[1])
    if count < NUM_FOLDS:
        raise DataError(f"class {name!r} has {count} images, and looking for wrong labels needs {NUM_FOLDS}: add some")
    asked, asked_files = load_test_pixels(data)
    count = len(train) + (0 if asked is None else len(asked))
    named = train.files or [f"train {number}" for number in range(len(train))]
    names = [*named, *(asked_files or [f"test {number}" for number in range(count - len(train))])]
    parts = _parts(train, count)
    with tempfile.TemporaryDirectory() as folder, continued_with("the same command"):
        images = train.images if asked is None else _joined(train.images, asked, Path(folder) / "images.npy")
        recipe = _recipe(data, images.shape[-1], seed)
        say("training a small autoencoder")
        latents, errors = _reconstructed(train, images, recipe, Path(folder))
        say("looking for near-duplicates")
        found = near_duplicates(images, latents, DUPLICATE_SIMILARITY, below=NUM_BELOW)
        pairs = [pair for pair in found if pair[2] >= DUPLICATE_SIMILARITY]
        suspects = _suspects(train, recipe, Path(folder))
        worst = _worst(train, errors)
        shown = sorted({place for pair in found for place in pair[:2]} | {row["image"] for row in [*suspects, *worst]})
        pictures = {place: np.array(images[place]) for place in shown}
    across = {second for first, second, _ in pairs if parts[first] != "test" and parts[second] == "test"}
    labels = np.concatenate([train.labels, np.full(count - len(train), UNLABELLED)])
    content = {
        "source": data.source,
        "image_size": train.images.shape[-1],
        "counts": _counts(train, parts),
        "skipped": [list(entry) for entry in train.skipped],
        "test_pixels_read": asked is not None,
        "threshold": DUPLICATE_SIMILARITY,
        "test_images_with_duplicates_in_training": len(across),
        "duplicates": [_row(pair, parts) for pair in pairs],
        "just_below": [_row(pair, parts) for pair in found[len(pairs) :]],
        "worst_reconstructed": worst,
        "label_suspects": suspects,
        "class_names": list(train.class_names),
        "labels": {str(place): int(labels[place]) for place in shown},
        "names": {str(place): str(names[place]) for place in shown},
    }
    return Inspection(content, pictures)


def save(content: dict[str, Any], folder: Path) -> None:
    """Writes `inspection.json`, and tables of duplicates, worst reconstructed, suspected labels and broken files."""
    names, classes = content["names"], content["class_names"]
    files.write_json(folder / "inspection.json", content)  # first: by it the folder is known as ours
    files.write_csv(
        folder / "duplicates.csv",
        ("first", "second", "similarity", "first_part", "second_part"),
        [
            (names[str(row["first"])], names[str(row["second"])], f"{row['similarity']:.4f}", *row["parts"])
            for row in content["duplicates"]
        ],
    )
    files.write_csv(
        folder / "reconstructions.csv",
        ("class", "file", "error"),
        [(row["class"], names[str(row["image"])], f"{row['error']:.6f}") for row in content["worst_reconstructed"]],
    )
    files.write_csv(
        folder / "labels.csv",
        ("file", "label", "seems", "margin"),
        [
            (names[str(row["image"])], classes[row["label"]], classes[row["seems"]], f"{row['margin']:.4f}")
            for row in content["label_suspects"]
        ],
    )
    files.write_csv(folder / "skipped.csv", ("file", "reason"), content["skipped"])


def _row(pair: tuple[int, int, float], parts: np.ndarray) -> dict[str, Any]:
    first, second, alike = pair
    return {"first": first, "second": second, "similarity": alike, "parts": [parts[first], parts[second]]}


def _recipe(data: Data, image_size: int, seed: int) -> Recipe:
    recipe = load_recipe(RECIPE, {"data.source": data.source, "seed": seed})
    return recipe.changed({"data": Data(source=data.source, image_size=image_size, standing="all-train")} | SETTINGS)


def _joined(first: np.ndarray, second: np.ndarray, file: Path) -> np.ndarray:
    """The images of both, (N, 3, S, S), on disk in `file`."""
    size = len(first) + len(second)
    joined = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(size, *first.shape[1:]))
    for images, offset in ((first, 0), (second, len(first))):
        for start in range(0, len(images), COPIED_AT_ONCE):
            some = images[start : start + COPIED_AT_ONCE]
            joined[offset + start : offset + start + len(some)] = some
    return joined


def _trained(train: ImageSet, split: Split, recipe: Recipe, folder: Path) -> Predictor:
    """A network trained on a part of the images of `train`, asked for one view."""
    run = train_on(train, resolved(recipe), folder, Calibration(), split=split)
    network, config = load_model(run.model_folder)
    return Predictor(network, config.model_copy(update={"views": 1}))


def _reconstructed(train: ImageSet, images: np.ndarray, recipe: Recipe, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Latents, float16 (N, ...), and squared errors (N,) of an autoencoder trained on `train`."""
    alone = recipe.changed({"classify.max_epochs": 0})
    known, unknown = (np.flatnonzero(has) for has in (train.labels != UNLABELLED, train.labels == UNLABELLED))
    predictor = _trained(train, Split(known, known[:0], unknown), alone, folder / "autoencoder")
    shape = (len(images), *latent_shape(predictor.network.encoder, images.shape[-1]))
    latents = np.lib.format.open_memmap(folder / "latents.npy", mode="w+", dtype=np.float16, shape=shape)
    errors = np.empty(len(images))
    for some, answer in predictor.answers(images, np.arange(len(images)), "Reconstructing"):
        latents[some], errors[some] = answer.latents, answer.errors
    return latents, errors


def _suspects(train: ImageSet, recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    """Images whose label is likely wrong, worst first, by networks that were trained on the other two thirds."""
    labelled = np.flatnonzero(train.labels != UNLABELLED)
    labels = train.labels[labelled]
    chances = np.empty((len(labels), len(train.class_names)))
    groups = None if train.groups is None else train.groups[labelled]
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold  # what belongs together is on one side
    splitter = kind(NUM_FOLDS, shuffle=True, random_state=recipe.seed)
    alone = recipe.changed({"pretrain.max_epochs": 0})
    for fold, (known, unseen) in enumerate(splitter.split(labelled, labels, groups)):
        _check_known(train, labelled[known])
        say(f"predicting part {fold + 1} of {NUM_FOLDS} from the others")
        predictor = _trained(train, Split(labelled[known], labelled[:0]), alone, folder / f"fold-{fold}")
        for some, answer in predictor.answers(train.images, labelled[unseen], "Predicting", decode=False):
            chances[unseen[some]] = answer.probabilities
    return [
        {"image": int(labelled[row]), "label": int(labels[row]), "seems": seems, "margin": margin}
        for row, seems, margin in confident_errors(labels, chances)
    ]


def _check_known(train: ImageSet, known: np.ndarray) -> None:
    missing = [name for name, count in train.counts(known).items() if not count]
    if missing:
        raise DataError(f"the groups of class {missing[0]!r} are too few to set some apart: leave out --group-column")


def _parts(train: ImageSet, count: int) -> np.ndarray:
    """The part of each image: "train", "val", "unlabelled" or "test"."""
    parts = np.full(count, "test", dtype=object)
    parts[: len(train)] = np.where(train.labels == UNLABELLED, "unlabelled", "train")
    if train.held_out is not None:
        parts[np.flatnonzero(train.held_out)] = "val"
    return parts


def _counts(train: ImageSet, parts: np.ndarray) -> dict[str, dict[str, int]]:
    """Part to class name to number of images; of those without labels, or whose labels stay unread, "all"."""
    counts = {part: train.counts(np.flatnonzero(parts[: len(train)] == part)) for part in PARTS[:2]}
    totals = {part: {"all": int((parts == part).sum())} for part in ("unlabelled", "test")}
    return {part: numbers for part, numbers in (counts | totals).items() if sum(numbers.values())}


def _worst(train: ImageSet, errors: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for label, name in enumerate(train.class_names):
        members = np.flatnonzero(train.labels == label)
        worst = members[np.argsort(-errors[members], kind="stable")][:NUM_WORST]
        rows += [{"class": name, "image": int(image), "error": float(errors[image])} for image in worst]
    return rows

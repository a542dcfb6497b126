"""A look at a dataset before it is trained on: what is there, what is there twice, what is odd, what is mislabelled."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from latentry import files
from latentry.data import load_test_pixels, load_train
from latentry.data.imageset import UNLABELLED, ImageSet
from latentry.data.listing import PARTS
from latentry.deploy.predictor import Answer, Predictor
from latentry.errors import DataError, RunError, continued_with
from latentry.evaluation.labels import confident_errors
from latentry.evaluation.similar import near_duplicates
from latentry.pipeline import Calibration, resolved, train_on
from latentry.progress import console, track
from latentry.recipe import Data, Recipe, load_recipe
from latentry.training.checkpoint import load_model

RECIPE = "quick"
PRETRAIN = {"max_epochs": 2, "min_steps_per_epoch": 50}
CLASSIFY = {"max_epochs": 4, "min_steps_per_epoch": 25, "batch_size": 128, "reconstruction_weight": 0.0}
"""What is changed in the recipe's stages: a look needn't be as good as a run."""
NUM_FOLDS = 3
DUPLICATE_SIMILARITY = 0.6
"""Chosen by eye, on pairs of CIFAR-10's images."""
NUM_WORST = 12
ASKED_AT_ONCE = 1_000


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found, and the images that it is about.

    Attributes:
        content: what `inspection.json` holds; its tables name images by their place in `images`.
        images: uint8 (N, 3, S, S), those of training, then the test's.
    """

    content: dict[str, Any]
    images: np.ndarray


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
    images = train.images if asked is None else np.concatenate([train.images, asked])
    named = train.files or [f"train {number}" for number in range(len(train))]
    names = [*named, *(asked_files or [f"test {number}" for number in range(len(images) - len(train))])]
    parts = _parts(train, len(images))
    with tempfile.TemporaryDirectory() as folder, continued_with("the same command"):
        recipe = _recipe(data, images.shape[-1], seed)
        console.print("training a small autoencoder", soft_wrap=True)
        latents, errors = _reconstructed(train, images, recipe, Path(folder))
        console.print("looking for near-duplicates", soft_wrap=True)
        pairs = near_duplicates(images, latents, DUPLICATE_SIMILARITY)
        suspects = _suspects(train, recipe, Path(folder))
    doubled = np.array([pair[:2] for pair in pairs], dtype=np.int64).reshape(-1, 2)
    across = {second for first, second in doubled.tolist() if parts[first] != "test" and parts[second] == "test"}
    labels = np.concatenate([train.labels, np.full(len(images) - len(train), UNLABELLED)])
    content = {
        "source": data.source,
        "image_size": images.shape[-1],
        "counts": _counts(train, parts),
        "skipped": [list(entry) for entry in train.skipped],
        "test_pixels_read": asked is not None,
        "threshold": DUPLICATE_SIMILARITY,
        "test_images_with_duplicates_in_training": len(across),
        "duplicates": [
            {"first": first, "second": second, "similarity": alike, "parts": [parts[first], parts[second]]}
            for first, second, alike in pairs
        ],
        "worst_reconstructed": _worst(train, errors),
        "label_suspects": suspects,
        "class_names": list(train.class_names),
        "labels": {str(place): int(labels[place]) for place in _shown(doubled, suspects)},
        "names": {str(place): str(names[place]) for place in _shown(doubled, suspects)},
    }
    content["names"] |= {str(row["image"]): str(names[row["image"]]) for row in content["worst_reconstructed"]}
    return Inspection(content, images)


def save(content: dict[str, Any], folder: Path) -> None:
    """Writes `inspection.json` and a table each of duplicates, of the worst reconstructed and of suspected labels."""
    names, classes = content["names"], content["class_names"]
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
    files.write_json(folder / "inspection.json", content)


def check_free(folder: Path) -> None:
    """Raises RunError if `folder` holds something that is no inspection."""
    if folder.exists() and not (folder / "inspection.json").exists() and (folder.is_file() or any(folder.iterdir())):
        raise RunError(f"{folder} is there already and holds no inspection: choose another --out")


def _recipe(data: Data, image_size: int, seed: int) -> Recipe:
    recipe = load_recipe(RECIPE, {"data.source": data.source, "seed": seed})
    return recipe.model_copy(
        update={
            "data": Data(source=data.source, image_size=image_size, standing="all-train"),
            "pretrain": recipe.pretrain.model_copy(update=PRETRAIN),
            "classify": recipe.classify.model_copy(update=CLASSIFY),
        }
    )


def _trained(train: ImageSet, recipe: Recipe, folder: Path) -> Predictor:
    """A network trained on the images of `train`, asked for one view."""
    run = train_on(dataclasses.replace(train, held_out=None, groups=None), resolved(recipe), folder, Calibration())
    network, config = load_model(run.model_folder)
    return Predictor(network, config.model_copy(update={"views": 1}))


def _reconstructed(train: ImageSet, images: np.ndarray, recipe: Recipe, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Latents, float16 (N, ...), and squared errors (N,) of an autoencoder trained on `train`."""
    alone = recipe.model_copy(update={"classify": recipe.classify.model_copy(update={"max_epochs": 0})})
    predictor = _trained(train, alone, folder / "autoencoder")
    latents, errors = [], []
    for answer in _asked(predictor, images, "Reconstructing"):
        latents.append(answer.latents.astype(np.float16))
        errors.append(answer.errors)
    return np.concatenate(latents), np.concatenate(errors)


def _suspects(train: ImageSet, recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    """Images whose label is likely wrong, worst first, by networks that were trained on the other two thirds."""
    labelled = np.flatnonzero(train.labels != UNLABELLED)
    labels = train.labels[labelled]
    chances = np.empty((len(labels), len(train.class_names)))
    splitter = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=recipe.seed)
    alone = recipe.model_copy(update={"pretrain": recipe.pretrain.model_copy(update={"max_epochs": 0})})
    for fold, (known, unseen) in enumerate(splitter.split(labelled, labels)):
        console.print(f"predicting part {fold + 1} of {NUM_FOLDS} from the others", soft_wrap=True)
        part = ImageSet(train.images[labelled[known]], labels[known], train.class_names)
        predictor = _trained(part, alone, folder / f"fold-{fold}")
        pixels = train.images[labelled[unseen]]
        chances[unseen] = np.concatenate([answer.probabilities for answer in _asked(predictor, pixels, "Predicting")])
    return [
        {"image": int(labelled[row]), "label": int(labels[row]), "seems": seems, "margin": margin}
        for row, seems, margin in confident_errors(labels, chances)
    ]


def _asked(predictor: Predictor, images: np.ndarray, description: str) -> Iterator[Answer]:
    for start in track(range(0, len(images), ASKED_AT_ONCE), description):
        yield predictor.answer(images[start : start + ASKED_AT_ONCE], reconstructions=False)


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


def _shown(doubled: np.ndarray, suspects: list[dict[str, Any]]) -> list[int]:
    return sorted({*doubled.ravel().tolist(), *(row["image"] for row in suspects)})

"""The scikit-learn interface: images as arrays in, classes, probabilities and latents out."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils import Tags, TransformerTags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch.nn import functional

from latentry.data.imageset import UNLABELLED, ImageSet
from latentry.deploy.predictor import Answer, Predictor
from latentry.evaluation.calibration import Calibration
from latentry.models.saved import load_model
from latentry.pipeline import resolved, train_on
from latentry.progress import console
from latentry.recipe import Recipe, load_recipe

SMALLEST_SIDE, LARGEST_SIDE = 16, 256
HELD_OUT_IMAGES = 8
"""A class needs as many for some to be held out; else the network trains on all, uncalibrated."""


class LatentClassifier(TransformerMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that reads an autoencoder's hidden layer, trained as a recipe says.

    `X` is images, uint8 or float, of shape (N, H, W, 3), (N, H, W, 1), (N, 3, H, W), (N, 1, H, W) or (N, H, W); or rows
    (N, features) that `image_shape` makes images of. Float images that leave [0, 1] are scaled by the least and
    greatest value of the training images. All that an estimator sees are uint8, or none.
    Rows without `image_shape` are laid out as small square pictures, each feature scaled by its own range: that works,
    and is no use.

    Parameters:
        recipe: a recipe's name or TOML file.
        settings: dotted recipe keys to values, such as {"classify.max_epochs": 3}.
        image_shape: (H, W), (H, W, C) or (C, H, W) of a row of `X`.
        class_weight: None, "balanced", or class to weight; shifts predictions on purpose, so it is not undone.
        random_state: seed of weights, split, order and transforms.
        device: "auto", "cpu" or "cuda".
        verbose: above 0 lets the training speak.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_: size of the second axis of `X`.
        predictor_: the trained `latentry.Predictor`.
        results_: what the run's `results.json` would hold.
    """

    def __init__(
        self,
        recipe: str = "quick",
        *,
        settings: dict[str, Any] | None = None,
        image_shape: tuple[int, ...] | None = None,
        class_weight: str | dict[Any, float] | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.recipe = recipe
        self.settings = settings
        self.image_shape = image_shape
        self.class_weight = class_weight
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any, unlabelled: Any = None) -> Self:
        """Trains on images `X` and their classes `y`; the autoencoder sees the images `unlabelled` too.

        Raises:
            ValueError: `X`, `y` or a parameter can't be used.
            LatentryError: the recipe or a setting is wrong.
        """
        X, y = validate_data(self, X, y, allow_nd=True, dtype="numeric")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: a classifier needs images of at least 2 classes")
        self._learn_range(X)
        arrays = [self._images(X)]
        if unlabelled is not None:
            arrays.append(self._images(check_array(unlabelled, allow_nd=True, dtype="numeric")))
            labels = np.concatenate([labels, np.full(len(arrays[1]), UNLABELLED)])
        names = tuple(str(number) for number in range(len(self.classes_)))
        images = ImageSet(np.concatenate(arrays), labels.astype(np.int64), names)
        with tempfile.TemporaryDirectory() as folder, _silenced(not self.verbose):
            run = train_on(images, self._recipe(images), Path(folder) / "run", Calibration())
            network, config = load_model(run.model_folder)
            self.results_ = run.results()
        unmoved = {"class_shares": config.trained_shares, "temperature": self.results_["temperature"]}
        as_trained = config.model_copy(update=unmoved)
        self.predictor_ = Predictor(network, as_trained, device=self.device, precision="fp32")
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each image, shape (N,)."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        classes: np.ndarray = self.classes_[likeliest]
        return classes

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, shape (N, K), in the order of `classes_`; calibrated if every class had 8 images or more."""
        return self._answer(X).probabilities

    def transform(self, X: Any) -> np.ndarray:
        """The hidden layer's answer to each image, float32 of shape (N, features)."""
        latents = self._answer(X).latents
        return latents.reshape(len(latents), -1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags = TransformerTags(preserves_dtype=["float32"])
        tags.input_tags.three_d_array = True
        return tags

    def _answer(self, X: Any) -> Answer:
        check_is_fitted(self)
        images = self._images(validate_data(self, X, allow_nd=True, dtype="numeric", reset=False))
        return self.predictor_.answer(images, decode=False)

    def _recipe(self, images: ImageSet) -> Recipe:
        """The recipe, resolved; of what are no pictures no transform is made, which would exchange features."""
        seed = int(check_random_state(self.random_state).randint(2**31))
        smallest = min(images.counts().values())
        weight: Any = self.class_weight
        if isinstance(weight, dict):
            numbers = {label: str(number) for number, label in enumerate(self.classes_.tolist())}
            unknown = [label for label in weight if label not in numbers]
            if unknown:
                raise ValueError(f"class_weight names {unknown[0]!r}; the classes are {list(numbers)}")
            weight = {numbers[label]: float(share) for label, share in weight.items()}
        changes = {
            "data.source": "arrays",
            "data.standing": "held-out" if smallest >= HELD_OUT_IMAGES else "all-train",
            "data.image_size": images.images.shape[-1],
            "data.split_seed": seed,
            "seed": seed,
            "device": self.device,
        }
        if weight is not None:
            changes["classify.class_weight"] = weight
        if not self._pictures:
            changes |= {"batches": {}, "evaluate.views": 1}
        recipe = resolved(load_recipe(self.recipe, changes | (self.settings or {})))
        if recipe.control:
            raise ValueError(f"recipe {recipe.name!r} also trains a control, for which an estimator has no use")
        return recipe

    def _learn_range(self, X: np.ndarray) -> None:
        """What takes values to [0, 1]: a table's features by their ranges; images by 255, or by theirs if outside."""
        self._pictures = X.ndim > 2 or self.image_shape is not None
        self._bytes = X.dtype == np.uint8
        self._least, self._greatest = np.float64(0), np.float64(1)
        if not self._pictures:
            self._least, self._greatest = X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
        elif self._bytes:
            self._greatest = np.float64(255)
        elif X.min() < 0 or X.max() > 1:
            self._least, self._greatest = np.float64(X.min()), np.float64(X.max())

    def _images(self, X: np.ndarray) -> np.ndarray:
        """`X` as uint8 (N, 3, S, S)."""
        if self._pictures and (X.dtype == np.uint8) != self._bytes:
            fitted = "uint8" if self._bytes else "numbers that are not uint8"
            raise ValueError(f"X is {X.dtype}, and the images that were fitted are {fitted}: give all in one form")
        span = np.maximum(self._greatest - self._least, np.finfo(np.float64).tiny)
        if X.dtype != np.uint8 or np.ndim(self._greatest) or self._greatest != 255:
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = np.nan_to_num((X.astype(np.float64) - self._least) / span).clip(0, 1)
            X = (scaled * 255).round().astype(np.uint8)
        return _squares(_channels_first(_shaped(X, self.image_shape)))


def _shaped(rows: np.ndarray, image_shape: tuple[int, ...] | None) -> np.ndarray:
    """Rows (N, features) as images of `image_shape`, or of the smallest square that holds them; images as they are."""
    if rows.ndim != 2:
        return rows
    count, features = rows.shape
    if image_shape is None:
        side = int(np.ceil(np.sqrt(features)))
        return np.pad(rows, ((0, 0), (0, side * side - features))).reshape(count, side, side)
    if features != np.prod(image_shape):
        raise ValueError(f"X has {features} features, and image_shape = {image_shape} holds {np.prod(image_shape)}")
    return rows.reshape(count, *image_shape)


def _channels_first(images: np.ndarray) -> np.ndarray:
    """Images of any of the known shapes as (N, 3, H, W)."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"X has the shape {images.shape}: give (N, H, W, C) or (N, C, H, W) with 1 or 3 channels")
    return np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images


def _squares(images: np.ndarray) -> np.ndarray:
    """uint8 images (N, 3, H, W) as (N, 3, S, S): unchanged where they are squares of a size that networks take."""
    height, width = images.shape[2:]
    side = min(max(height, width, SMALLEST_SIDE), LARGEST_SIDE)
    if (height, width) == (side, side):
        return np.ascontiguousarray(images)
    scaled = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(images)).float(), (side, side), mode="bicubic", antialias=True
    )
    return scaled.round().clamp(0, 255).byte().numpy()


@contextlib.contextmanager
def _silenced(silent: bool) -> Iterator[None]:
    before, console.quiet = console.quiet, silent
    try:
        yield
    finally:
        console.quiet = before

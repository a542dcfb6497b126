"""Which images train and which validate. The split comes before everything else."""

import dataclasses
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

from latentry import files
from latentry.data.imageset import ImageSet
from latentry.errors import DataError, RunError
from latentry.recipe import Data

NUM_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Split:
    """Sorted int64 indices into the training images; `validation` is empty in the all-train standing."""

    train: np.ndarray
    validation: np.ndarray

    @property
    def sha256(self) -> str:
        """Hash of both index lists."""
        return files.sha256(self.train.tobytes(), b"|", self.validation.tobytes())

    def to_json(self) -> dict[str, Any]:
        """What `split.json` holds."""
        return {"sha256": self.sha256, "train": self.train.tolist(), "validation": self.validation.tolist()}

    @classmethod
    def from_json(cls, content: Any) -> "Split":
        """The split that `to_json` wrote.

        Raises:
            RunError: the content is not a split, or its hash does not match.
        """
        try:
            split = cls(np.array(content["train"], dtype=np.int64), np.array(content["validation"], dtype=np.int64))
            intact = split.sha256 == content["sha256"]
        except (KeyError, TypeError, ValueError, OverflowError):
            intact = False
        if not intact:
            raise RunError("split.json is damaged: its indices do not match its hash; restore it or train again")
        return split


def make_split(images: ImageSet, data: Data) -> Split:
    """Applies the limits, then holds back a stratified validation part (none in the all-train standing).

    Raises:
        DataError: a limit names an unknown class or exceeds what the class has, or a class is too small to split.
    """
    kept = limited(images, data.limit, data.draw, data.split_seed)
    if data.standing == "all-train":
        return Split(kept, np.empty(0, dtype=np.int64))
    labels = images.labels[kept]
    smallest = min(images.counts(kept).items(), key=lambda item: item[1])
    if smallest[1] < 2:
        raise DataError(
            f"class {smallest[0]!r} has {smallest[1]} training images, and a held-out split needs 2 of each class: "
            "add images, raise the limit, or use --standing all-train"
        )
    splitter = StratifiedShuffleSplit(NUM_FOLDS, test_size=data.validation, random_state=data.split_seed)
    try:
        folds = list(splitter.split(kept, labels))
    except ValueError:
        raise DataError(
            f"data.validation = {data.validation} of {len(kept)} images leaves a side with fewer images than there "
            "are classes: add images, change data.validation, or use --standing all-train"
        ) from None
    train, validation = folds[data.fold]
    return Split(np.sort(kept[train]), np.sort(kept[validation]))


def limited(images: ImageSet, limit: dict[str, int], draw: str, seed: int) -> np.ndarray:
    """Sorted indices of the images that stay when each class named in `limit` keeps at most that many.

    `draw` is "first" (file order) or "random" (seeded by `seed`).

    Raises:
        DataError: a limit names an unknown class or exceeds what the class has.
    """
    unknown = sorted(limit.keys() - set(images.class_names))
    if unknown:
        raise DataError(f"the limit names the class {unknown[0]!r}; the classes are {', '.join(images.class_names)}")
    counts = images.counts()
    generator = np.random.default_rng(seed)
    kept = []
    for label, name in enumerate(images.class_names):
        indices = np.flatnonzero(images.labels == label)
        most = limit.get(name, counts[name])
        if most > counts[name]:
            raise DataError(f"the limit {name}={most} is more than the {counts[name]} images of {name}: lower it")
        if draw == "random":
            indices = generator.permutation(indices)
        kept.append(indices[:most])
    return np.sort(np.concatenate(kept))

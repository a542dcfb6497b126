"""Which images train and which validate. The split comes before everything else."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from latentry import files
from latentry.data.imageset import UNLABELLED, ImageSet
from latentry.errors import DataError, RunError
from latentry.settings import Data

NUM_FOLDS = 5
LARGEST_SPLIT_BYTES = 1 << 26
"""Of `split.json`: indices of some six million images."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Sorted int64 indices into the training images; `validation` is empty in the all-train standing.

    Those `unlabelled` are for pretraining, beside the ones in `train`.
    """

    train: np.ndarray
    validation: np.ndarray
    unlabelled: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def sha256(self) -> str:
        """Hash of the index lists."""
        added = (b"|", self.unlabelled.tobytes()) if len(self.unlabelled) else ()
        return files.sha256(self.train.tobytes(), b"|", self.validation.tobytes(), *added)

    def to_json(self) -> dict[str, Any]:
        """What `split.json` holds."""
        return {"sha256": self.sha256} | {
            field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)
        }

    @classmethod
    def read(cls, path: Path) -> "Split":
        """The split in the file `split.json` at `path`.

        Raises:
            RunError: it is missing, far larger than latentry writes it, or damaged.
        """
        return cls.from_json(files.read_json(path, LARGEST_SPLIT_BYTES))

    @classmethod
    def from_json(cls, content: Any) -> "Split":
        """The split that `to_json` wrote.

        Raises:
            RunError: the content is not a split, or its hash does not match.
        """
        try:
            lists = (content["train"], content["validation"], content.get("unlabelled", []))
            split = cls(*(np.array(indices, dtype=np.int64) for indices in lists))
            intact = split.sha256 == content["sha256"]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            intact = False
        if not intact:
            raise RunError("split.json is damaged: its indices do not match its hash; restore it or train again")
        return split


def make_split(images: ImageSet, data: Data) -> Split:
    """Applies the limits, then holds back a validation part (none in the all-train standing).

    That part is what the images' owner held out, where that was done; else it is drawn, stratified by class, groups
    kept whole, those without labels too. A limit counts the images that were not held out.

    Raises:
        DataError: a limit names an unknown class or exceeds what the class has, or a class is too small to split.
    """
    kept = limited(images, data.limit, data.draw, data.split_seed)
    unlabelled = np.flatnonzero(images.labels == UNLABELLED)
    held_out = np.empty(0, dtype=np.int64) if images.held_out is None else np.flatnonzero(images.held_out)
    if data.standing == "all-train":
        return Split(np.union1d(kept, held_out), held_out[:0], unlabelled)
    split = Split(kept, held_out, unlabelled)
    if not len(held_out):
        train, validation = _in_groups(images, kept, data) if images.groups is not None else _drawn(images, kept, data)
        split = Split(np.sort(kept[train]), np.sort(kept[validation]), unlabelled)
    missing = [name for name, count in images.counts(split.train).items() if not count]
    if missing:
        raise DataError(
            f"the training part has no image of class {missing[0]!r}: add some, or use --standing all-train"
        )
    if images.groups is not None:
        apart = ~np.isin(images.groups[unlabelled], images.groups[split.validation])
        split = dataclasses.replace(split, unlabelled=unlabelled[apart])
    return split


def _drawn(images: ImageSet, kept: np.ndarray, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Positions into `kept` that train and that validate, by a stratified shuffle split."""
    name, count = min(images.counts(kept).items(), key=lambda item: item[1])
    if count < 2:
        raise DataError(
            f"class {name!r} has {count} training images, and a held-out split needs 2 of each class: "
            "add images, raise the limit, or use --standing all-train"
        )
    splitter = StratifiedShuffleSplit(NUM_FOLDS, test_size=data.validation, random_state=data.split_seed)
    try:
        folds = list(splitter.split(kept, images.labels[kept]))
    except ValueError:
        raise DataError(
            f"data.validation = {data.validation} of {len(kept)} images leaves a side with fewer images than there "
            "are classes: add images, change data.validation, or use --standing all-train"
        ) from None
    train, validation = folds[data.fold]
    return train, validation


def _in_groups(images: ImageSet, kept: np.ndarray, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """As `_drawn`, with whole groups on either side; their share of images is then only about what was asked for."""
    assert images.groups is not None
    if data.validation > 0.5:
        raise DataError(
            f"data.validation = {data.validation}, and of grouped images at most 0.5 can be held out: lower it"
        )
    num_parts = round(1 / data.validation)
    groups = images.groups[kept]
    if data.fold >= num_parts or len(np.unique(groups)) < num_parts:
        raise DataError(
            f"data.validation = {data.validation} makes {num_parts} parts of {len(np.unique(groups))} groups, of which "
            f"fold {data.fold} is asked for: give more groups, a larger data.validation, or a smaller data.fold"
        )
    splitter = StratifiedGroupKFold(num_parts, shuffle=True, random_state=data.split_seed)
    with warnings.catch_warnings():
        # A class of fewer images than parts is in some of them only; the one that is chosen is looked at afterwards.
        warnings.simplefilter("ignore")
        try:
            folds = list(splitter.split(kept, images.labels[kept], groups))
        except ValueError as error:
            raise DataError(f"the images can't be split into {num_parts} parts by group ({error}): add some") from None
    train, validation = folds[data.fold]
    return train, validation


def limited(images: ImageSet, limit: dict[str, int], draw: str, seed: int) -> np.ndarray:
    """Sorted indices of the images that stay when each class named in `limit` keeps at most that many.

    Of labelled images that are not held out. `draw` is "first" (file order) or "random" (seeded by `seed`).

    Raises:
        DataError: a limit names an unknown class or exceeds what the class has.
    """
    unknown = sorted(limit.keys() - set(images.class_names))
    if unknown:
        raise DataError(f"the limit names the class {unknown[0]!r}; the classes are {', '.join(images.class_names)}")
    free = np.ones(len(images), dtype=bool) if images.held_out is None else ~images.held_out
    generator = np.random.default_rng(seed)
    kept = []
    for label, name in enumerate(images.class_names):
        indices = np.flatnonzero((images.labels == label) & free)
        most = limit.get(name, len(indices))
        if most > len(indices):
            raise DataError(f"the limit {name}={most} is more than the {len(indices)} images of {name}: lower it")
        if draw == "random":
            indices = generator.permutation(indices)
        kept.append(indices[:most])
    return np.sort(np.concatenate(kept))

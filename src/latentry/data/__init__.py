"""From files to an `ImageSet`, and from an `ImageSet` to a split."""

from pathlib import Path

import numpy as np

from latentry.data import cifar10
from latentry.data.decoding import Decoded, decoded
from latentry.data.imageset import UNLABELLED, ImageSet
from latentry.data.listing import Listing, has_test, listed_for_test, listed_for_training
from latentry.errors import DataError
from latentry.progress import say, warn
from latentry.settings import Data

LARGEST_BROKEN_SHARE = 0.05
FEW_IMAGES = 10
NUM_BROKEN_NAMED = 100


def load_train(data: Data) -> ImageSet:
    """Every image that training may draw from, before limits and the split, those without labels last.

    Raises:
        DataError: the source is missing, damaged, or makes no sense.
    """
    if data.source == "cifar10":
        return cifar10.load_train()
    listing = listed_for_training(Path(data.source), data.group_column, data.unlabelled)
    images = read(listing, data.image_size, data.source)
    held_out = np.zeros(len(images), dtype=bool) if images.held_out is None else images.held_out
    for part, least in ((~held_out, FEW_IMAGES), (held_out, 1)):
        few = {name: count for name, count in images.counts(np.flatnonzero(part)).items() if count < least}
        if few and part.any():
            named = ", ".join(f"{name} {count}" for name, count in few.items())
            what = f"fewer than {least} training" if part is not held_out else "no validation"
            warn(f"{what} images of a class ({named}): its numbers will mean little")
    return images


def load_test(data: Data) -> ImageSet:
    """The test images with their labels. Only `latentry.evaluation.evaluate` may call it.

    Raises:
        DataError: the source is missing, damaged, or has no test images.
    """
    if data.source == "cifar10":
        return cifar10.load_test()
    return read(listed_for_test(Path(data.source)), data.image_size, f"{data.source} (test)")


def load_test_pixels(data: Data) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The test images, uint8 (N, 3, S, S), and their files, without their labels; None where there are none.

    Raises:
        DataError: as `read`.
    """
    if data.source == "cifar10":
        return cifar10.load_test_pixels(), ()
    if not has_test(Path(data.source)):
        return None, ()
    files = listed_for_test(Path(data.source)).files
    content, _ = _decoded(files, data.image_size, f"{data.source} (test)")
    return content.images, tuple(str(files[position]) for position in content.positions)


def check_test(data: Data) -> None:
    """Raises DataError where test images are missing or have other classes; opens no image."""
    if data.source != "cifar10":
        listed_for_test(Path(data.source))


def read(listing: Listing, image_size: int, source: str) -> ImageSet:
    """The images of `listing`, scaled to `image_size` pixels square; broken ones are left out and named.

    Raises:
        DataError: more than 5 % are broken, of those with labels or of those without, or all of a class or part.
    """
    content, skipped = _decoded(listing.files, image_size, source, listing.labels == UNLABELLED)
    images = ImageSet(
        content.images,
        listing.labels[content.positions],
        listing.class_names,
        held_out=listing.held_out[content.positions] if listing.held_out.any() else None,
        groups=None if listing.groups is None else listing.groups[content.positions],
        files=tuple(str(listing.files[position]) for position in content.positions),
        skipped=skipped,
    )
    empty = [f"class {name!r}" for name, count in images.counts().items() if not count]
    if images.held_out is not None and not images.held_out.any():
        empty.append("the part val")
    if empty:
        raise DataError(f"none of the images of {empty[0]} can be read; {': '.join(skipped[0])}; mend them")
    return images


def _decoded(
    files: tuple[Path, ...], image_size: int, source: str, apart: np.ndarray | None = None
) -> tuple[Decoded, tuple[tuple[str, str], ...]]:
    """The files decoded, and those that are broken; 5 % of the ones that stand `apart`, and of the others, may be."""
    content = decoded(files, image_size, source)
    skipped = tuple((str(files[position]), reason) for position, reason in content.broken.items())
    if skipped:
        first = f"{skipped[0][0]}: {skipped[0][1]}"
        broken, whole = np.isin(np.arange(len(files)), list(content.broken)), np.ones(len(files), dtype=bool)

        def found(side: np.ndarray) -> str:
            return f"{broken[side].sum():,} of {side.sum():,} images of {source} can't be read"

        for side in [whole] if apart is None else [apart, ~apart]:
            if broken[side].sum() > LARGEST_BROKEN_SHARE * side.sum():
                for file, reason in skipped[:NUM_BROKEN_NAMED]:
                    say(f"{file}: {reason}")
                raise DataError(f"{found(side)}, the limit is {LARGEST_BROKEN_SHARE:.0%}; {first}; mend or remove them")
        warn(f"{found(whole)} and are left out; {first}")
    return content, skipped

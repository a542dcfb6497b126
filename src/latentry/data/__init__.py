"""From files to an `ImageSet`, and from an `ImageSet` to a split."""

from pathlib import Path

import numpy as np

from latentry.data import cifar10
from latentry.data.decoding import decoded
from latentry.data.imageset import ImageSet
from latentry.data.listing import Listing, has_test, listed_for_test, listed_for_training
from latentry.errors import DataError
from latentry.progress import console
from latentry.recipe import Data

LARGEST_BROKEN_SHARE = 0.05
FEW_IMAGES = 10


def load_train(data: Data) -> ImageSet:
    """Every image that training may draw from, before limits and the split, those without labels last.

    Raises:
        DataError: the source is missing, damaged, or makes no sense.
    """
    if data.source == "cifar10":
        return cifar10.load_train()
    listing = listed_for_training(Path(data.source), data.group_column, data.unlabelled)
    images = read(listing, data.image_size, data.source)
    few = {name: count for name, count in images.counts().items() if count < FEW_IMAGES}
    if few:
        named = ", ".join(f"{name} {count}" for name, count in few.items())
        console.print(
            f"fewer than {FEW_IMAGES} images of a class ({named}): its numbers will mean little",
            style="yellow",
            soft_wrap=True,
        )
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
    """The test images, uint8 (N, 3, S, S), and their files, without their labels; None where there are none."""
    if data.source == "cifar10":
        return cifar10.load_test_pixels(), ()
    if not has_test(Path(data.source)):
        return None, ()
    listing = listed_for_test(Path(data.source))
    content = decoded(listing.files, data.image_size, f"{data.source} (test)")
    return content.images, tuple(str(listing.files[position]) for position in content.positions)


def check_test(data: Data) -> None:
    """Raises DataError where test images are missing or have other classes; opens no image."""
    if data.source != "cifar10":
        listed_for_test(Path(data.source))


def read(listing: Listing, image_size: int, source: str) -> ImageSet:
    """The images of `listing`, scaled to `image_size` pixels square; broken ones are left out and named.

    Raises:
        DataError: more than 5 % are broken, or all of a class.
    """
    content = decoded(listing.files, image_size, source)
    skipped = tuple((str(listing.files[position]), reason) for position, reason in content.broken.items())
    if skipped:
        first = f"{skipped[0][0]}: {skipped[0][1]}"
        found = f"{len(skipped):,} of {len(listing.files):,} images of {source} can't be read"
        if len(skipped) > LARGEST_BROKEN_SHARE * len(listing.files):
            raise DataError(f"{found}, the limit is {LARGEST_BROKEN_SHARE:.0%}; {first}; mend or remove them")
        console.print(f"{found} and are left out; {first}", style="yellow", soft_wrap=True)
    labels = listing.labels[content.positions]
    images = ImageSet(
        content.images,
        labels,
        listing.class_names,
        held_out=listing.held_out[content.positions] if listing.held_out.any() else None,
        groups=None if listing.groups is None else listing.groups[content.positions],
        files=tuple(str(listing.files[position]) for position in content.positions),
        skipped=skipped,
    )
    empty = [name for name, count in images.counts().items() if not count]
    if empty:
        raise DataError(f"none of the images of class {empty[0]!r} can be read; {first}; mend them")
    return images

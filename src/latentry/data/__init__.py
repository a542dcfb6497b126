"""From files to an `ImageSet`, and from an `ImageSet` to a split."""

from pathlib import Path

from latentry.data import cifar10, folder
from latentry.data.imageset import ImageSet
from latentry.recipe import Data


def load_train(data: Data) -> ImageSet:
    """Every image that training may draw from, before limits and the split.

    Raises:
        DataError: the source is missing or damaged.
    """
    if data.source == "cifar10":
        return cifar10.load_train()
    return folder.load_train(Path(data.source), data.image_size)


def load_test(data: Data) -> ImageSet:
    """The test images with their labels. Only `latentry.evaluation.evaluate` may call it.

    Raises:
        DataError: the source is missing, damaged, or has no test images.
    """
    if data.source == "cifar10":
        return cifar10.load_test()
    return folder.load_test(Path(data.source), data.image_size)


def check_test(data: Data) -> None:
    """Raises DataError where test images are missing or have other classes; reads neither images nor labels."""
    if data.source != "cifar10":
        folder.check_test(Path(data.source))

"""A folder of images, one folder a class."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from latentry.data.imageset import ImageSet
from latentry.errors import DataError
from latentry.progress import track

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
LARGEST_IMAGE_PIXELS = 50_000_000


def load_train(folder: Path, image_size: int) -> ImageSet:
    """Images of `folder/train/CLASS/*`, or of `folder/CLASS/*`, resized to `image_size` pixels square, in name order.

    Raises:
        DataError: no such folder, fewer than two classes, an empty class, or an image that can't be read.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: --data takes cifar10 or a folder with one folder of images a class")
    inner = folder / "train"
    return _load(inner if inner.is_dir() else folder, image_size)


def load_test(folder: Path, image_size: int) -> ImageSet:
    """Images of `folder/test/CLASS/*`, resized to `image_size` pixels square, in name order.

    Raises:
        DataError: as `load_train`, or the classes are not those of the training images.
    """
    if not (folder / "test").is_dir():
        raise DataError(f"{folder} has no test images: put them into {folder / 'test'}, one folder a class")
    test = _load(folder / "test", image_size)
    train_names = _class_names(folder / "train" if (folder / "train").is_dir() else folder)
    if test.class_names != train_names:
        raise DataError(f"{folder / 'test'} has the classes {test.class_names}, training has {train_names}")
    return test


def _class_names(folder: Path) -> tuple[str, ...]:
    entries = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return tuple(sorted(entry.name for entry in entries if entry.name != "test"))


def _load(folder: Path, image_size: int) -> ImageSet:
    names = _class_names(folder)
    if len(names) < 2:
        raise DataError(f"{folder} has {len(names)} class folders, and at least 2 are needed: one folder a class")
    paths, labels = [], []
    for label, name in enumerate(names):
        found = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in ENDINGS)
        if not found:
            raise DataError(f"{folder / name} has no images ({', '.join(sorted(ENDINGS))}): fill it or remove it")
        paths += found
        labels += [label] * len(found)
    images = np.empty((len(paths), 3, image_size, image_size), dtype=np.uint8)
    for index, path in enumerate(track(paths, f"Reading {folder}")):
        images[index] = _read(path, image_size)
    return ImageSet(images, np.array(labels, dtype=np.int64), names)


def _read(path: Path, image_size: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST_IMAGE_PIXELS:
                raise DataError(
                    f"{path} has {image.width}x{image.height} pixels, the limit is {LARGEST_IMAGE_PIXELS:,}: shrink it"
                )
            rgb = image.convert("RGB").resize((image_size, image_size), Image.Resampling.BICUBIC)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image that can be read ({error}): mend it or remove it") from None
    return np.asarray(rgb).transpose(2, 0, 1)

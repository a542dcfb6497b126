"""A folder of images, one folder a class."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

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
    return _load(_train_part(folder), image_size)


def load_test(folder: Path, image_size: int) -> ImageSet:
    """Images of `folder/test/CLASS/*`, resized to `image_size` pixels square, in name order.

    Raises:
        DataError: as `load_train`, or the classes are not those of the training images.
    """
    check_test(folder)
    return _load(folder / "test", image_size)


def check_test(folder: Path) -> None:
    """Raises DataError unless there is a test part with images of each class of training; opens none."""
    train_names = _class_names(_train_part(folder))
    if not (folder / "test").is_dir():
        raise DataError(f"{folder} has no test images: put them into {folder / 'test'}, one folder a class")
    names = _class_names(folder / "test")
    if names != train_names:
        raise DataError(
            f"{folder / 'test'} has the classes {', '.join(names)}, and training has {', '.join(train_names)}: "
            "give both the same"
        )
    for name in names:
        _image_files(folder / "test" / name)


def _train_part(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: --data takes cifar10 or a folder with one folder of images a class")
    return folder / "train" if (folder / "train").is_dir() else folder


def _class_names(folder: Path) -> tuple[str, ...]:
    entries = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    # Beside classes that lie in the folder itself, `test` is the test part.
    return tuple(sorted(entry.name for entry in entries if entry.name != "test" or folder.name == "train"))


def _load(folder: Path, image_size: int) -> ImageSet:
    names = _class_names(folder)
    if len(names) < 2:
        raise DataError(f"{folder} has fewer than 2 class folders: give each class a folder of images")
    paths, labels = [], []
    for label, name in enumerate(names):
        found = _image_files(folder / name)
        paths += found
        labels += [label] * len(found)
    images = np.empty((len(paths), 3, image_size, image_size), dtype=np.uint8)
    for index, path in enumerate(track(paths, f"Reading {folder}")):
        images[index] = _read(path, image_size)
    return ImageSet(images, np.array(labels, dtype=np.int64), names)


def _image_files(class_folder: Path) -> list[Path]:
    visible = (path for path in class_folder.iterdir() if not path.name.startswith("."))
    found = sorted(path for path in visible if path.suffix.lower() in ENDINGS)
    if not found:
        raise DataError(f"{class_folder} has no images ({', '.join(sorted(ENDINGS))}): fill it or remove the class")
    return found


def _read(path: Path, image_size: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST_IMAGE_PIXELS:
                raise DataError(
                    f"{path} has {image.width}x{image.height} pixels, the limit is {LARGEST_IMAGE_PIXELS:,}: shrink it"
                )
            rgb = _rgb(image).resize((image_size, image_size), Image.Resampling.BICUBIC)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise what their formats make them stumble over
        raise DataError(f"{path} is not an image that can be read ({error}): mend it or remove it") from None
    return np.asarray(rgb).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    """The picture as a person sees it: upright, 16-bit grey scaled to 8, transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return image.convert("RGB")

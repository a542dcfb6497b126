"""A folder of images, and what is wrong with one."""

import numpy as np
import pytest
from PIL import Image

from latentry.data import folder
from latentry.errors import DataError


def test_reads_images_in_name_order(toy_folder):
    images = folder.load_train(toy_folder, 32)
    assert images.class_names == ("circle", "cross", "stripes")
    assert images.counts() == {"circle": 40, "cross": 40, "stripes": 40}
    with Image.open(toy_folder / "train" / "cross" / "001.png") as picture:
        assert np.array_equal(images.images[41], np.asarray(picture).transpose(2, 0, 1))
    assert folder.load_test(toy_folder, 24).images.shape == (60, 3, 24, 24)
    assert folder.load_train(toy_folder, 32).sha256 == images.sha256
    assert folder.load_train(toy_folder, 16).sha256 != images.sha256


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        folder.load_train(tmp_path / "missing", 32)
    (tmp_path / "one").mkdir()
    with pytest.raises(DataError, match="has 1 class folders"):
        folder.load_train(tmp_path, 32)
    (tmp_path / "two").mkdir()
    with pytest.raises(DataError, match=r"one has no images"):
        folder.load_train(tmp_path, 32)
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "a.png")
    (tmp_path / "two" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png is not an image"):
        folder.load_train(tmp_path, 32)
    with pytest.raises(DataError, match="has no test images"):
        folder.load_test(tmp_path, 32)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("1", (10_000, 6_000)).save(tmp_path / name / "large.png")
    with pytest.raises(DataError, match=r"large\.png has 10000x6000 pixels, the limit is 50,000,000"):
        folder.load_train(tmp_path, 32)

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
    with pytest.raises(DataError, match="has fewer than 2 class folders"):
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
    for name in ("one", "two"):
        (tmp_path / "test" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"test/one has no images .*: fill it or remove the class"):
        folder.check_test(tmp_path)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("1", (10_000, 6_000)).save(tmp_path / name / "large.png")
    with pytest.raises(DataError, match=r"large\.png has 10000x6000 pixels, the limit is 50,000,000"):
        folder.load_train(tmp_path, 32)


def test_pictures_come_out_as_a_person_sees_them(tmp_path):
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    half = Image.new("RGB", (16, 8), (200, 30, 30))
    upright = Image.new("RGB", (16, 16), (30, 30, 200))
    upright.paste(half, (0, 0))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees to the right
    pictures = {
        "rgb.png": (red, {}),
        "palette.png": (red.quantize(4), {}),
        "cmyk.jpg": (red.convert("CMYK"), {"quality": 100}),
        "clear.png": (Image.new("RGBA", (16, 16), (200, 30, 30, 0)), {}),
        "deep.png": (Image.fromarray(np.full((16, 16), 30_000, dtype=np.uint16)), {}),
        "grey.png": (Image.new("L", (16, 16), 117), {}),
        "turned.png": (upright.rotate(90, expand=True), {"exif": turned}),
    }
    for name, (picture, options) in pictures.items():
        for label in ("one", "two"):
            (tmp_path / label).mkdir(exist_ok=True)
            picture.save(tmp_path / label / name, **options)
    (tmp_path / "one" / "._rgb.png").write_bytes(b"a file of another system")
    read = dict(zip(sorted(pictures), folder.load_train(tmp_path, 16).images, strict=False))
    assert {name: image.mean(axis=(1, 2)).round().tolist() for name, image in read.items() if name != "turned.png"} == {
        "clear.png": [255, 255, 255],
        "cmyk.jpg": pytest.approx([200, 30, 30], abs=2),
        "deep.png": [116, 116, 116],
        "grey.png": [117, 117, 117],
        "palette.png": [200, 30, 30],
        "rgb.png": [200, 30, 30],
    }
    assert np.array_equal(read["turned.png"], np.asarray(upright).transpose(2, 0, 1))

"""Pictures of every kind come out as a person sees them, or with a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from latentry.data.pictures import PictureError, read_picture

RED = Image.new("RGB", (16, 16), (200, 30, 30))


def encoded(picture: Image.Image, ending: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, ending, **options)
    return stream.getvalue()


def deep(value: int) -> Image.Image:
    return Image.fromarray(np.full((16, 16), value, dtype=np.uint16))


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (encoded(RED, "png"), [200, 30, 30]),
        (encoded(RED, "bmp"), [200, 30, 30]),
        (encoded(RED, "ppm"), [200, 30, 30]),
        (encoded(RED, "webp", lossless=True), [200, 30, 30]),
        (encoded(RED.quantize(4), "png"), [200, 30, 30]),
        (encoded(RED.quantize(4), "gif"), [200, 30, 30]),
        (encoded(RED.convert("CMYK"), "jpeg", quality=100), [200, 30, 30]),
        (encoded(RED.convert("CMYK"), "tiff"), [200, 30, 30]),
        (encoded(RED, "jpeg", quality=100), [200, 30, 30]),
        (encoded(Image.new("RGBA", (16, 16), (200, 30, 30, 0)), "png"), [255, 255, 255]),
        (encoded(Image.new("RGBA", (16, 16), (200, 30, 30, 255)), "png"), [200, 30, 30]),
        (encoded(Image.new("RGBA", (16, 16), (200, 30, 30, 128)), "png"), [227, 142, 142]),
        (encoded(Image.new("LA", (16, 16), (117, 0)), "png"), [255, 255, 255]),
        (encoded(RED.quantize(4), "png", transparency=0), [255, 255, 255]),
        (encoded(Image.new("L", (16, 16), 117), "png"), [117, 117, 117]),
        (encoded(Image.new("1", (16, 16), 1), "png"), [255, 255, 255]),
        (encoded(deep(30_000), "png"), [116, 116, 116]),
        (encoded(deep(65_535), "tiff"), [255, 255, 255]),
        (encoded(Image.fromarray(np.full((16, 16), 30_000, dtype=np.int32)), "tiff"), [116, 116, 116]),
        (encoded(Image.fromarray(np.full((16, 16), 0.5, dtype=np.float32)), "tiff"), [128, 128, 128]),
        (encoded(RED, "gif", save_all=True, append_images=[Image.new("RGB", (16, 16))]), [200, 30, 30]),
    ],
)
def test_kinds(content, colour):
    picture = read_picture(content, 16)
    assert picture.shape == (3, 16, 16)
    assert picture.dtype == np.uint8
    assert picture.mean(axis=(1, 2)) == pytest.approx(colour, abs=2)


@pytest.mark.parametrize("ending", ["png", "jpeg"])
@pytest.mark.parametrize(
    ("orientation", "made_by"),
    [
        (1, []),
        (2, [Image.Transpose.FLIP_LEFT_RIGHT]),
        (3, [Image.Transpose.ROTATE_180]),
        (4, [Image.Transpose.FLIP_TOP_BOTTOM]),
        (5, [Image.Transpose.TRANSPOSE]),
        (6, [Image.Transpose.ROTATE_90]),
        (7, [Image.Transpose.TRANSVERSE]),
        (8, [Image.Transpose.ROTATE_270]),
    ],
)
def test_a_turned_photograph_is_turned_back(orientation, made_by, ending):
    upright = Image.new("RGB", (16, 16), (30, 30, 200))
    upright.paste((200, 30, 30), (0, 0, 16, 8))
    upright.paste((30, 200, 30), (0, 0, 8, 8))
    stored, turned = upright, Image.Exif()
    for change in made_by:
        stored = stored.transpose(change)
    turned[0x0112] = orientation
    picture = read_picture(encoded(stored, ending, exif=turned, quality=100), 16)
    assert np.abs(picture - np.asarray(upright).transpose(2, 0, 1).astype(int)).mean() < 10  # 40 and more if wrong


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_to_the_same_picture():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (6, 9, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels).resize((900, 600), Image.Resampling.BICUBIC)
    whole = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1).astype(float)
    assert np.abs(read_picture(encoded(picture, "jpeg", quality=98, subsampling=0), 32) - whole).mean() < 2


def test_small_ones_of_slow_kinds_are_read():
    assert read_picture(b"P3 1 1 255 # red\n200 30 30", 16)[:, 5, 5].tolist() == [200, 30, 30]


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes `count` times."""
    content = encoded(RED, "jpeg", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * count + content[-2:]


def test_a_film_behind_a_photograph_is_not_read():
    film = np.random.default_rng(0).bytes(1_000) + b"\xff\xda" * 1_000
    for photograph in (with_scans(1), with_scans(50), encoded(RED, "jpeg")):
        assert np.array_equal(read_picture(photograph + film, 16), read_picture(photograph, 16))


HEADER = bytearray(encoded(Image.new("P", (500, 400)), "bmp")[: 14 + 40 + 1024])
HEADER[30:34] = (1).to_bytes(4, "little")  # says that runs of pixels are counted
RUN_LENGTHS = bytes(HEADER) + b"\x01\x00" * 100_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"not an image", "no image of a format that is read"),
        (encoded(RED, "png")[:60], "damaged or cut off"),
        (encoded(RED, "pdf"), "no image of a format that is read"),
        (encoded(Image.new("1", (10_000, 6_000)), "png"), "it has 10000x6000 pixels, the limit is 50,000,000"),
        (encoded(Image.new("1", (20_000, 20_000)), "png"), "far more than 50,000,000 pixels"),
        (
            encoded(Image.fromarray(np.full((9, 9), 200, dtype=np.float32)), "tiff"),
            "from 200 to 200, the limits are 0 and 1",
        ),
        (
            encoded(Image.fromarray(np.full((9, 9), 70_000, dtype=np.int32)), "tiff"),
            "from 70000 to 70000, .* and 65535",
        ),
        (b"P3 9 9 255\n" + b"#\n" * 500_000, r"its kind of PPM is slow to read, and it has 1,000,011 bytes"),
        (b"P6 300 300 90\n" + bytes(270_000), r"its kind of PPM is slow to read, and it has 270,014 bytes"),
        (RUN_LENGTHS, r"its kind of BMP is slow to read, and it has 201,078 bytes"),
        (b"P6 #" + b"a" * 1_000_000, "its header has more than 4,096 bytes"),
        (with_scans(200), "it has more than 100 scans, the limit"),
        (b"\xff\xd8" + b"\xff\xe1\0\2" * 20_000, "it has more than 100 scans, the limit"),
    ],
)
def test_what_is_wrong_is_said(content, reason):
    with pytest.raises(PictureError, match=reason):
        read_picture(content, 32)

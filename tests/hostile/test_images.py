"""Pictures, and the cache of decoded ones, that are nearly right."""

import io

import numpy as np
import pytest
from PIL import Image

from latentry import files
from latentry.data import pictures
from latentry.data.decoding import _kept
from latentry.data.pictures import read_picture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def picture(ending: str, kind: type = np.uint8, channels: int = 3, mode: str | None = None, **options: object) -> bytes:
    """A file of 20x24 pixels of any value, turned into `mode` where one is given."""
    shape = (24, 20, channels) if channels > 1 else (24, 20)
    values = np.random.default_rng(0).integers(0, 256, shape).astype(kind)
    image, stream = Image.fromarray(values), io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, ending, **options)
    return stream.getvalue()


def enormous() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(stream, "PNG")
    return stream.getvalue()


PICTURES = (
    picture("PNG"),
    picture("PNG", np.uint16, channels=1),
    picture("PNG", channels=4),
    picture("GIF", mode="P", transparency=3),
    picture("BMP"),
    picture("PPM"),
    picture("WEBP"),
    picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    picture("JPEG", mode="CMYK"),
    picture("TIFF", compression="tiff_lzw"),
    picture("TIFF", np.float32, channels=1),
    enormous(),
    b"",
)


def test_pictures(fuzzed):
    readings = fuzzed(
        PICTURES,
        lambda content: read_picture(content or b"", 16),
        *(read_picture, pictures.as_seen, pictures._eight_bits, pictures._problem),
    )
    assert readings.problems == []
    assert readings.said


def test_what_is_beside_decoded_images(fuzzed, tmp_path):
    (tmp_path / "place.u8").write_bytes(bytes(4 * 3 * 16 * 16))
    whole = (b'{"broken": {"3": "it is empty"}}',)  # of five files, so four images
    readings = fuzzed(whole, lambda path: _kept(path.with_suffix(""), 5, 16), _kept, files.read_json, file="place.json")
    assert readings.problems == []  # what can't be read is made again, so nothing is said

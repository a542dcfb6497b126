"""One image file to one array, as a person would see it; and one array to a file."""

import base64
import contextlib
import io
import re
import threading
import warnings

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""The formats that are opened, whatever a file is called; Pillow knows others whose decoders run programs."""
LARGEST_IMAGE_PIXELS = 50_000_000
MANY_PIXELS = 10_000_000
LARGEST_SLOW_BYTES = 1 << 16
"""Of a file whose decoder is written in Python: compressed BMP, PPM in text or of other than 8 or 16 bits."""
LARGEST_PPM_HEADER = 4096
LARGEST_NUM_SCANS = 100
"""Of a progressive JPEG, which usually has ten; each takes as long as a whole picture."""
LARGEST_NUM_SEGMENTS = 10_000
JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""Other than those that stand within a scan."""
ONE_AT_A_TIME = threading.Lock()
"""Held while an image of many pixels is decoded, so that on many cores their copies don't fill the memory."""

# What Pillow has to say of odd files is said here, file by file.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PictureError(Exception):
    """Why a file is no picture that can be used, in one line without the file's name."""


class UnknownFormatError(PictureError):
    """It is of none of the formats that are read."""


class TooManyPixelsError(PictureError):
    """It would take too much memory."""


def num_pixels(content: bytes, formats: tuple[str, ...] = FORMATS) -> int:
    """How many pixels an encoded image says it has; 0 where it is none that can be read."""
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            return image.width * image.height
    except Exception:  # noqa: BLE001 - whoever decodes it will say what is wrong
        return 0


def read_picture(content: bytes, image_size: int, formats: tuple[str, ...] = FORMATS) -> np.ndarray:
    """Returns uint8 (3, S, S) of an encoded image: upright, in sRGB's order, transparency on white, its first frame.

    Only `formats` are read. It is scaled to a square of `image_size` pixels, whatever its shape. More than 50
    megapixels are refused before they are decoded.

    Raises:
        PictureError: it is no image, cut off, damaged, too large, or of a format that isn't read.
    """
    try:
        _check_header(content)
        with Image.open(io.BytesIO(content), formats=formats) as image:
            if image.width * image.height > LARGEST_IMAGE_PIXELS:
                size = f"{image.width}x{image.height}"
                raise TooManyPixelsError(f"it has {size} pixels, the limit is {LARGEST_IMAGE_PIXELS:,}")
            _check_decoder(image, len(content))
            # A JPEG is decoded at a fraction of its size where that still is twice what is asked for.
            image.draft(None, (2 * image_size, 2 * image_size))
            square = (image_size, image_size)
            with ONE_AT_A_TIME if image.width * image.height > MANY_PIXELS else contextlib.nullcontext():
                picture = as_seen(image).resize(square, Image.Resampling.BICUBIC, reducing_gap=3.0)
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise what their formats make them stumble over
        raise _problem(content, error, formats) from None
    pixels: np.ndarray = np.asarray(picture).transpose(2, 0, 1)
    return pixels


def as_seen(image: Image.Image) -> Image.Image:
    """`image` in RGB as a person sees it: turned upright, deep grey scaled to 8 bits, transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.array(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return image.convert("RGB")


def png_of(picture: Image.Image) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def picture_uri(image: np.ndarray) -> str:
    """One uint8 image (3, H, W) as a data address."""
    return data_uri(png_of(pillow_of(image)))


def pillow_of(image: np.ndarray) -> Image.Image:
    """One uint8 image (3, H, W) as Pillow's."""
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


def _check_header(content: bytes) -> None:
    """Raises PictureError where reading no more than the header, or scan after scan, would take minutes."""
    scans = _num_scans(content) if content.startswith(b"\xff\xd8") else 0
    if scans > LARGEST_NUM_SCANS:
        raise PictureError(f"it has more than {LARGEST_NUM_SCANS} scans, the limit: save it as PNG")
    if re.match(rb"P[1-7fF]\s", content):  # PPM and its kin, which may have comments of any length
        words = re.sub(rb"#[^\r\n]*", b"", content[:LARGEST_PPM_HEADER]).split()
        if len(words) < (3 if content[1:2] in b"14" else 4) and len(content) > LARGEST_PPM_HEADER:
            raise PictureError(f"its header has more than {LARGEST_PPM_HEADER:,} bytes, the limit: save it as PNG")


def _num_scans(content: bytes) -> int:
    """How many scans the picture of a JPEG file has, not counting what is behind it; no more than one above the limit.

    Source: ITU T.81, annex B.
    """
    scans, place = 0, 2
    for _ in range(LARGEST_NUM_SEGMENTS):
        marker = JPEG_MARKER.search(content, place)
        if marker is None or marker[1] == b"\xd9" or scans > LARGEST_NUM_SCANS:
            return scans
        scans += marker[1] == b"\xda"
        alone = marker[1] in (b"\x01", b"\xd8")  # without a length
        place = marker.end() + (0 if alone else int.from_bytes(content[marker.end() : marker.end() + 2], "big"))
    return LARGEST_NUM_SCANS + 1


def _check_decoder(image: ImageFile.ImageFile, size_bytes: int) -> None:
    """Raises PictureError where a large file would be decoded byte by byte."""
    if size_bytes > LARGEST_SLOW_BYTES and any(tile[0] in Image.DECODERS for tile in image.tile):
        raise PictureError(
            f"its kind of {image.format} is slow to read, and it has {size_bytes:,} bytes, the limit is "
            f"{LARGEST_SLOW_BYTES:,}: save it as PNG"
        )


def _eight_bits(levels: np.ndarray, mode: str) -> np.ndarray:
    """Grey levels (H, W) of 16 or 32 bits, or floats, as uint8: by the whole range of 16 bits, floats by [0, 1].

    Works in `levels`, since a picture may have many.

    Raises:
        PictureError: they leave that range, so what they mean isn't known.
    """
    greatest = 1.0 if mode == "F" else 65_535
    np.nan_to_num(levels, copy=False, posinf=np.inf, neginf=-np.inf)
    least, most = levels.min(), levels.max()
    if least < 0 or most > greatest:
        raise PictureError(f"its grey levels go from {least:g} to {most:g}, the limits are 0 and {greatest:g}")
    if mode == "F":
        np.round(np.multiply(levels, 255, out=levels), out=levels)
    else:
        np.floor_divide(levels, 257, out=levels)
    return levels.astype(np.uint8)


def _problem(content: bytes, error: Exception, formats: tuple[str, ...]) -> PictureError:
    if not content:
        return PictureError("it is empty")
    if isinstance(error, Image.DecompressionBombError):
        return TooManyPixelsError(f"it has far more than {LARGEST_IMAGE_PIXELS:,} pixels, the limit")
    if isinstance(error, UnidentifiedImageError):
        return UnknownFormatError(f"it is no image of a format that is read ({', '.join(formats)})")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return PictureError(f"it is damaged or cut off ({reason})")

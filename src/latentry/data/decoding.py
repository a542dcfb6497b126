"""Many image files to one memory-mapped array, decoded once on all cores and kept by content."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock

from latentry import files
from latentry.data.cache import default_cache
from latentry.data.pictures import PictureError, read_picture
from latentry.errors import DataError, RunError
from latentry.progress import track

LARGEST_FILE_BYTES = 1 << 28
FORMAT = "1"
"""Part of the key: another number whenever the same file would be decoded to other pixels."""
AHEAD = 4
"""How many files a core are read before the first of them is needed."""

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What files were decoded to.

    Attributes:
        images: uint8, shape (N, 3, S, S), memory-mapped and read-only.
        positions: int64, shape (N,), which of the files each image came from; the broken ones are left out.
        broken: position of each file that could not be read, and why.
    """

    images: np.ndarray
    positions: np.ndarray
    broken: dict[int, str]


def decoded(paths: Sequence[Path], image_size: int, source: str, cache: Path | None = None) -> Decoded:
    """Decodes `paths` to squares of `image_size` pixels, or finds them in the cache, whatever they are called by now.

    Memory stays at a few images a core, however many there are. `source` is what messages call them.

    Raises:
        DataError: a file changed meanwhile.
    """
    # A file is read twice the first time, to know whether the second reading is needed.
    digest = hashlib.sha256(f"{FORMAT}|{image_size}".encode())
    for one in track(in_threads(_file_digest, paths), f"Looking through {source}", len(paths)):
        digest.update(one)
    folder = (cache or default_cache()) / "images"
    place = folder / digest.hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        return _kept(place, len(paths), image_size) or _decode(paths, image_size, source, place)


def _kept(place: Path, num_files: int, image_size: int) -> Decoded | None:
    """What `_decode` left at `place`; None where that is nothing, or not whole."""
    try:
        content = files.read_json(place.with_suffix(".json"))
        broken = {int(position): str(reason) for position, reason in content["broken"].items()}
        positions = np.setdiff1d(np.arange(num_files), np.array(list(broken), dtype=np.int64))
        shape = (len(positions), 3, image_size, image_size)
        pixels = place.with_suffix(".u8")
        if pixels.stat().st_size != int(np.prod(shape)) or len(broken) != num_files - len(positions):
            return None
        images = np.memmap(pixels, np.uint8, "r", shape=shape) if len(positions) else np.empty(shape, np.uint8)
    except (RunError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Decoded(images, positions, broken)


def _decode(paths: Sequence[Path], image_size: int, source: str, place: Path) -> Decoded:
    broken: dict[int, str] = {}
    digest = hashlib.sha256(f"{FORMAT}|{image_size}".encode())

    def attempt(path: Path) -> tuple[bytes, np.ndarray | str]:
        try:
            content = _content(path)
        except PictureError as error:
            return str(error).encode(), str(error)
        one = hashlib.sha256(content).digest()
        try:
            return one, read_picture(content, image_size)
        except PictureError as error:
            return one, str(error)

    with files.replacing(place.with_suffix(".u8")) as temporary, temporary.open("wb") as file:
        for position, (one, answer) in enumerate(track(in_threads(attempt, paths), f"Decoding {source}", len(paths))):
            digest.update(one)
            if isinstance(answer, str):
                broken[position] = answer
            else:
                file.write(answer.tobytes())
        if digest.hexdigest() != place.name:
            raise DataError(f"the files of {source} changed while they were read: try again")
    files.write_text(place.with_suffix(".json"), json.dumps({"broken": broken}) + "\n")
    kept = _kept(place, len(paths), image_size)
    assert kept is not None
    return kept


def in_threads(function: Callable[[Path], Answer], paths: Iterable[Path]) -> Iterator[Answer]:
    """`function` of every path, in order, on all cores, a few ahead of the one that is asked for."""
    cores = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        todo = iter(paths)
        waiting = collections.deque(pool.submit(function, path) for path in itertools.islice(todo, AHEAD * cores))
        try:
            while waiting:
                answer = waiting.popleft().result()
                waiting.extend(pool.submit(function, path) for path in itertools.islice(todo, 1))
                yield answer
        finally:
            pool.shutdown(cancel_futures=True)


def read_file(path: Path, image_size: int) -> np.ndarray | str:
    """The picture in a file as uint8 (3, S, S), or why there is none."""
    try:
        return read_picture(_content(path), image_size)
    except PictureError as error:
        return str(error)


def _content(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may have no end
            raise PictureError("it is no file")
        if found.st_size > LARGEST_FILE_BYTES:
            raise PictureError(f"it has {found.st_size:,} bytes, the limit is {LARGEST_FILE_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise PictureError(f"it can't be opened ({getattr(error, 'strerror', None) or error})") from None


def _file_digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(_content(path)).digest()
    except PictureError as error:
        return str(error).encode()

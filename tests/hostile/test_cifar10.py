"""CIFAR-10's files that are nearly right, in each of their forms, and archives that lie."""

import gzip
import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from latentry import files
from latentry.data import cifar10
from latentry.errors import DataError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def archive(form: int = tarfile.GNU_FORMAT, packed: str = "gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{packed}", format=form) as whole:
        for name, size in (("cifar/data_batch_1.bin", 5000), ("cifar/readme.html", 88), ("cifar/test_batch.bin", 900)):
            member = tarfile.TarInfo(name)
            member.size = size
            member.pax_headers = {"comment": "x" * 40} if form == tarfile.PAX_FORMAT else {}
            whole.addfile(member, io.BytesIO(bytes(size)))
    return stream.getvalue()


NUM_ROWS = 2
PICKLE = pickle.dumps({b"data": np.zeros((NUM_ROWS, 3072), dtype=np.uint8), b"labels": [0] * NUM_ROWS}, protocol=2)
CALL = pickle.dumps(print, protocol=2)
NO_LABELS = json.dumps([[0] * NUM_ROWS] * 5).encode()


def sheet(width: int, colour: str = "black") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, NUM_ROWS), colour).save(stream, "PNG")
    return stream.getvalue()


def black(ending: str) -> dict[str, bytes]:
    """The files of one form of CIFAR-10 whose few images are black, all of the first class."""
    content = {".bin": bytes(NUM_ROWS * cifar10.ROW_BYTES), "": PICKLE, ".png": sheet(1024)}[ending]
    return {name + ending: content for name in cifar10.BATCH_SHA256} | dict.fromkeys(cifar10.NPM_LABEL_FILES, NO_LABELS)


def of_batches(file: str, ending: str, whole: tuple[bytes, ...]) -> Callable[[bytes | None], object]:
    """A reader of the files of one form, one in question; pickles that are `whole` pass for the official ones."""
    sums = dict.fromkeys(cifar10.BATCH_SHA256, files.sha256(bytes(NUM_ROWS * cifar10.ROW_BYTES)))
    official = {name: hashlib.md5(PICKLE).hexdigest() for name in sums}

    def read(content: bytes | None) -> object:
        question = {file: hashlib.md5(content).hexdigest()} if content in whole else {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cifar10, "BATCH_ROWS", NUM_ROWS)
            patch.setattr(cifar10, "BATCH_SHA256", sums)
            patch.setattr(cifar10, "PYTHON_MD5", official | question)
            parts = black(ending) | {file: content}
            return cifar10._decode({name: part for name, part in parts.items() if part is not None})

    return read


def test_an_archive(fuzzed):
    readings = fuzzed(
        (archive(), gzip.decompress(archive()), archive(tarfile.PAX_FORMAT, "xz")),
        lambda path: cifar10._decode(cifar10._read_archive(path)),
        *(cifar10._read_archive, cifar10._wanted, cifar10._Member._proc_member),
        file="cifar.tar.gz",
    )
    assert readings.problems == []
    assert readings.said


@pytest.mark.parametrize(
    ("file", "ending", "others", "functions"),
    [
        ("data_batch_2.bin", ".bin", (), (cifar10._binary_batch,)),
        ("data_batch_2", "", (CALL,), (cifar10._python_batch, cifar10._ArrayUnpickler.find_class)),
        ("data_batch_2.png", ".png", (sheet(1024, "white"), sheet(20)), (cifar10._png_batch,)),
        (cifar10.NPM_LABEL_FILES[0], ".png", (), (cifar10._png_batch,)),
    ],
)
def test_a_batch(file, ending, others, functions, fuzzed):
    whole = (black(ending)[file], *others)
    readings = fuzzed(whole, of_batches(file, ending, whole), cifar10._decode, cifar10._rows, *functions)
    assert readings.problems == []
    assert readings.said


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_archive_that_unpacks_to_far_more(kind, tmp_path):
    first, member = tarfile.TarInfo("cifar/readme.html"), tarfile.TarInfo("cifar/data_batch_1.bin")
    member.size, member.type = 1 << 33, kind
    content = first.tobuf() + member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"unpacks to more than CIFAR-10, 8,589,934,592 bytes at 512"):
        cifar10._read_archive(tmp_path / "bomb.tar.gz")

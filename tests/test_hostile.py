"""Every reader against files that are nearly right: an answer or one line, soon, in little memory, nothing run."""

import gzip
import hashlib
import inspect
import io
import json
import os
import pickle
import resource
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from latentry import files, recipe
from latentry.data import cifar10, listing, pictures
from latentry.data.decoding import _kept
from latentry.data.listing import listed_for_test, listed_for_training
from latentry.data.pictures import PictureError, read_picture
from latentry.data.split import Split
from latentry.errors import DataError, LatentryError
from latentry.evaluation.evaluate import load_predictions
from latentry.models.network import build_network
from latentry.models.saved import FORMAT_VERSION, ModelConfig, load_config, load_model, read_weights, save_model
from latentry.recipe import load_recipe
from latentry.run import Run
from latentry.settings import Model
from latentry.training.checkpoint import loaded

NUM_INPUTS = int(os.environ.get("LATENTRY_HOSTILE_INPUTS", "500"))
LONGEST_SECONDS, LARGEST_BYTES, LEAST_COVERAGE = 5.0, 1 << 30, 0.9
POISON = [
    *(b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff", b"999999999999", b"-1", b"1e999", b"NaN", b"null", b"true", b'"'),
    *(b"[]", b"{}", b"[" * 2000, b"../../etc/passwd", b"\xed\xa0\x80", b"\n", b",", b"=", b"'''", b"cos\nsystem\n"),
]


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` with a few of its bytes changed, removed, repeated, moved or cut off."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        stop = start + draw(st.sampled_from([1, 1, 2, 4, 8, 64, 1024]))
        kind = draw(st.sampled_from(["flip", "poison", "instead", "remove", "repeat", "cut"]))
        if kind == "flip" and content:
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "poison":
            content[start:start] = draw(st.sampled_from(POISON))
        elif kind == "instead":
            content[start:stop] = draw(st.sampled_from(POISON) | st.binary(max_size=16))
        elif kind == "remove":
            del content[start:stop]
        elif kind == "repeat":
            content[start:start] = content[start:stop]
        elif kind == "cut":
            del content[start:]
    return bytes(content)


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
NO_LABELS = json.dumps([[0] * NUM_ROWS] * 5).encode()


def sheet(width: int, colour: str = "black") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, NUM_ROWS), colour).save(stream, "PNG")
    return stream.getvalue()


def black(ending: str) -> dict[str, bytes]:
    """The files of one form of CIFAR-10 whose few images are black, all of the first class."""
    content = {".bin": bytes(NUM_ROWS * cifar10.ROW_BYTES), "": PICKLE, ".png": sheet(1024)}[ending]
    return {name + ending: content for name in cifar10.BATCH_SHA256} | dict.fromkeys(cifar10.NPM_LABEL_FILES, NO_LABELS)


def of_batches(file: str, ending: str) -> Callable[[bytes, Path], object]:
    """A reader of the files of one form, one in question; a pickle passes for the official one, to be opened."""

    def read(content: bytes | None, _: Path) -> object:
        sums = dict.fromkeys(cifar10.BATCH_SHA256, files.sha256(bytes(NUM_ROWS * cifar10.ROW_BYTES)))
        pickles = {name: hashlib.md5(PICKLE).hexdigest() for name in sums}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cifar10, "BATCH_ROWS", NUM_ROWS)
            patch.setattr(cifar10, "BATCH_SHA256", sums)
            patch.setattr(cifar10, "PYTHON_MD5", pickles | {file: hashlib.md5(content or b"").hexdigest()})
            parts = black(ending) | {file: content}
            return cifar10._decode({name: part for name, part in parts.items() if part is not None})

    return read


def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes | None, Path], None]:
    """A reader of files as one of bytes; None is a file that isn't there."""

    def of_bytes(content: bytes | None, folder: Path) -> None:
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(content)
        read(folder / name)

    return of_bytes


def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "epoch": 1}, stream)
    return stream.getvalue()


def model_folder(folder: Path) -> Path:
    network = build_network(Model(autoencoder="seed2", classifier="seed2"), 16, 2, torch.zeros(3), torch.ones(3))
    config = ModelConfig(
        format_version=FORMAT_VERSION,
        class_names=("cat", "dog"),
        image_size=16,
        network=Model(autoencoder="seed2", classifier="seed2"),
        mean=(0, 0, 0),
        deviation=(1, 1, 1),
        views=1,
        temperature=1.0,
        class_shares=(0.5, 0.5),
        trained_shares=(0.5, 0.5),
    )
    save_model(folder, network, config)
    return folder


TABLE = b"""path,label,part,group
a.png,cat,train,1
b.png,cat,train,
c.png,dog,train,2
d.png,cat,test,3
e.png,dog,test,4
"""


def kept(place: Path) -> object:
    """What is beside it of four decoded images, the fourth of five files being broken."""
    place.with_suffix(".u8").write_bytes(bytes(4 * 3 * 16 * 16))
    return _kept(place.with_suffix(""), 5, 16)


class Reader(NamedTuple):
    """What reads files of strangers.

    Attributes:
        whole: files to begin with, most of them as they should be.
        read: it.
        functions: what it is made of, most lines of which the tried files must reach.
    """

    whole: tuple[bytes, ...]
    read: Callable[[Any, Path], object]
    functions: tuple[Callable[..., Any], ...]


READERS = {
    "picture": Reader(
        PICTURES,
        lambda content, _: read_picture(content or b"", 16),
        (read_picture, pictures.as_seen, pictures._eight_bits, pictures._problem),
    ),
    "archive": Reader(
        (archive(), gzip.decompress(archive()), archive(tarfile.PAX_FORMAT, "xz")),
        in_file("cifar.tar.gz", lambda path: cifar10._decode(cifar10._read_archive(path))),
        (cifar10._read_archive, cifar10._wanted, cifar10._Member._proc_member),
    ),
    **{
        file: Reader(
            (black(ending)[file], *others), of_batches(file, ending), (cifar10._decode, cifar10._rows, *functions)
        )
        for file, ending, others, *functions in (
            ("data_batch_2.bin", ".bin", (), cifar10._binary_batch),
            ("data_batch_2", "", (), cifar10._python_batch, cifar10._ArrayUnpickler.find_class),
            ("data_batch_2.png", ".png", (sheet(1024, "white"), sheet(20)), cifar10._png_batch),
            (cifar10.NPM_LABEL_FILES[0], ".png", (), cifar10._png_batch),
        )
    },
    "table": Reader(
        (TABLE,),
        in_file("table.csv", lambda path: (listed_for_training(path, "group"), listed_for_test(path))),
        (listing._rows, listing._of_table, listing._check_apart, listing._check_groups, listing._check_filled),
    ),
    "recipe": Reader(
        (
            load_recipe("quick").to_toml().encode(),
            b"data = 3",
            b"[pretrain]\nmax_epochs = 0\n[classify]\nmax_epochs = 0",
            b"#" * (recipe.LARGEST_RECIPE_BYTES + 1),
            b"seed" + b".a" * 150 + b" = 1",
            b"a." * 250 + b"a = 1",
        ),
        in_file("mine.toml", lambda path: load_recipe(str(path))),
        (recipe.read_toml, recipe.parse_recipe, recipe._keys_at, recipe._nearest),
    ),
    "checkpoint": Reader((checkpoint(),), in_file("last.ckpt", loaded), (loaded,)),
    "decoded images": Reader(
        (b'{"broken": {"3": "it is empty"}}',),
        in_file("place.json", kept),
        (_kept, files.read_json),
    ),
}
FORGIVING = {"decoded images"}
"""What can't be read is made again."""


RUN: list[str] = []
"""What was started since it was cleared: other programs, or connections."""


def note_what_runs(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
        RUN.append(f"{event}{arguments}")


sys.addaudithook(note_what_runs)


class HangError(BaseException):
    """An input that takes far too long; no reader mistakes it for a damaged file."""


def hang(*_: object) -> None:
    raise HangError


@dataclass
class Readings:
    """What reading many inputs came to; anything but an answer or a `LatentryError` has ended the test by itself."""

    functions: tuple[Callable[..., Any], ...]
    said: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    largest_bytes: int = 0
    reached: set[tuple[CodeType, int]] = field(default_factory=set)
    started: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = {line for function in self.functions for line in lines_of(inspect.unwrap(function).__code__)}
        self.codes = {code for code, _ in self.lines}

    def trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        """Notes which lines are reached, as `sys.settrace` tells."""
        if frame.f_code not in self.codes:
            return None
        if event == "line":
            self.reached.add((frame.f_code, frame.f_lineno))
        return self.trace

    def add(self, read: Callable[[], object]) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the largest memory so far is forgotten
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_REAL, 4 * LONGEST_SECONDS)
        RUN.clear()
        sys.settrace(self.trace)
        try:
            read()
        except (LatentryError, PictureError) as error:
            self.said.append(str(error))
        finally:
            sys.settrace(None)
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.started += RUN
        self.longest_seconds = max(self.longest_seconds, time.perf_counter() - started)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        self.largest_bytes = max(self.largest_bytes, grown)

    @property
    def problems(self) -> list[str]:
        """Empty if each refusal was one line, no input took long or much memory, and most lines were reached."""
        problems = [said for said in self.said if not said or "\n" in said] + self.started
        if self.longest_seconds > LONGEST_SECONDS:
            problems.append(f"{self.longest_seconds:.1f} s for one input")
        if self.largest_bytes > LARGEST_BYTES:
            problems.append(f"{self.largest_bytes:,} bytes for one input")
        if len(self.reached & self.lines) < LEAST_COVERAGE * len(self.lines):
            missed = sorted(f"{code.co_name}, line {line}" for code, line in self.lines - self.reached)
            problems.append(f"not reached, of {len(self.lines)}: {missed}")
        return problems


def lines_of(code: CodeType) -> set[tuple[CodeType, int]]:
    """The lines of a function's body, and of what is defined in it."""
    found = {(code, line) for *_, line in code.co_lines() if line and line > code.co_firstlineno}
    return found.union(*(lines_of(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def fuzzed(reader: Reader, folder: Path) -> Readings:
    """What it says of whole files, of none, and of many that are nearly right."""
    signal.signal(signal.SIGALRM, hang)
    readings = Readings(reader.functions)
    for content in (*reader.whole, None):
        readings.add(lambda content=content: reader.read(content, folder))

    @settings(
        max_examples=NUM_INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(content=st.sampled_from(reader.whole).flatmap(mutated))
    def inputs(content: bytes) -> None:
        readings.add(lambda: reader.read(content, folder))

    inputs()
    return readings


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", READERS)
def test_readers_of_one_file(name, tmp_path):
    readings = fuzzed(READERS[name], tmp_path)
    assert readings.problems == []
    assert readings.said or name in FORGIVING


@pytest.mark.parametrize(
    ("name", "functions"),
    {
        "config.json": (load_config, ModelConfig.shares_are_of_the_classes, files.read_json),
        "model.safetensors": (read_weights, load_model),
    }.items(),
)
def test_a_model_folder(name, functions, tmp_path):
    valid = (model_folder(tmp_path) / name).read_bytes()
    readings = fuzzed(Reader((valid,), in_file(name, lambda _: load_model(tmp_path)), functions), tmp_path)
    assert readings.problems == []
    assert readings.said


@pytest.mark.parametrize(
    ("name", "read", "functions"),
    [
        ("recipe.toml", lambda run: Run.open(run.folder).recipe(), (Run.open.__func__, Run.recipe)),
        ("results.json", Run.results, (Run.results, files.read_json)),
        ("metrics.csv", Run.metrics, (Run.metrics,)),
        (
            "predictions.npz",
            lambda run: (load_predictions(run), load_predictions(run, "validation")),
            (load_predictions,),
        ),
        ("split.json", lambda run: Split.from_json(files.read_json(run.split_file)), (Split.from_json.__func__,)),
    ],
)
def test_a_run_folder(name, read, functions, finished_run, tmp_path):
    valid = (finished_run / name).read_bytes()
    readings = fuzzed(Reader((valid,), in_file(name, lambda _: read(Run(tmp_path))), functions), tmp_path)
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

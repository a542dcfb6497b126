"""Every reader against files that are nearly right: an answer or one line, soon, in little memory, nothing run."""

import gzip
import io
import json
import os
import pickle
import resource
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from latentry import files
from latentry.data import cifar10
from latentry.data.decoding import _kept
from latentry.data.listing import listed_for_test, listed_for_training
from latentry.data.pictures import PictureError, read_picture
from latentry.data.split import Split
from latentry.errors import DataError, LatentryError
from latentry.evaluation.evaluate import load_predictions
from latentry.models.network import build_network
from latentry.models.saved import FORMAT_VERSION, ModelConfig, load_model, save_model
from latentry.recipe import load_recipe
from latentry.run import Run
from latentry.settings import Model
from latentry.training.checkpoint import loaded

NUM_INPUTS = int(os.environ.get("LATENTRY_HOSTILE_INPUTS", "500"))
LONGEST_SECONDS, LARGEST_BYTES = 5.0, 1 << 30
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


def picture(ending: str, **options: object) -> bytes:
    image, stream = (
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)),
        io.BytesIO(),
    )
    image.save(stream, ending, **options)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as whole:
        for name, size in (("cifar/data_batch_1.bin", 5000), ("cifar/readme.html", 88), ("cifar/test_batch.bin", 900)):
            member = tarfile.TarInfo(name)
            member.size = size
            whole.addfile(member, io.BytesIO(bytes(size)))
    return stream.getvalue()


FORGIVING = {"decoded images"}
"""What can't be read is made again."""


def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], None]:
    """A reader of files as one of bytes."""

    def of_bytes(content: bytes, folder: Path) -> None:
        (folder / name).write_bytes(content)
        read(folder / name)

    return of_bytes


def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "epoch": 1}, stream)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
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
LABELS = json.dumps([[0, 1]]).encode()
READERS: dict[str, tuple[bytes, Callable[[bytes, Path], object]]] = {
    **{
        f"picture in {name}": (picture(name, **options), lambda content, _: read_picture(content, 16))
        for name, options in {
            "PNG": {},
            "JPEG": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
            "GIF": {},
            "BMP": {},
            "TIFF": {"compression": "tiff_lzw"},
            "WEBP": {},
            "PPM": {},
        }.items()
    },
    "official archive": (archive(), in_file("cifar.tar.gz", lambda path: cifar10._decode(cifar10._read_archive(path)))),
    "official pickle": (
        pickle.dumps({b"data": np.zeros((4, 3072), dtype=np.uint8), b"labels": [1, 2, 3, 4]}, protocol=2),
        lambda content, _: cifar10._decode({"data_batch_1": content}),
    ),
    "sheet": (
        picture("PNG"),
        lambda content, _: cifar10._decode({"data_batch_1.png": content, "train_lables.json": LABELS}),
    ),
    "sheet's labels": (
        LABELS,
        lambda content, _: cifar10._decode({"data_batch_1.png": b"", "train_lables.json": content}),
    ),
    "table": (TABLE, in_file("table.csv", lambda path: (listed_for_training(path, "group"), listed_for_test(path)))),
    "recipe": (load_recipe("quick").to_toml().encode(), in_file("mine.toml", lambda path: load_recipe(str(path)))),
    "checkpoint": (checkpoint(), in_file("last.ckpt", loaded)),
    "decoded images": (
        b'{"broken": {"3": "it is empty"}}',
        in_file("place.json", lambda path: _kept(path.with_suffix(""), 5, 16)),
    ),
}


@dataclass
class Readings:
    """What reading many inputs came to; anything but an answer or a `LatentryError` has ended the test by itself."""

    said: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    largest_bytes: int = 0

    def add(self, read: Callable[[], object]) -> None:
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read()
        except (LatentryError, PictureError) as error:
            self.said.append(str(error))
        self.longest_seconds = max(self.longest_seconds, time.perf_counter() - started)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        self.largest_bytes = max(self.largest_bytes, grown)

    @property
    def problems(self) -> list[str]:
        """Empty if each refusal was one line and no input took long or much memory."""
        problems = [said for said in self.said if not said or "\n" in said]
        if self.longest_seconds > LONGEST_SECONDS:
            problems.append(f"{self.longest_seconds:.1f} s for one input")
        if self.largest_bytes > LARGEST_BYTES:
            problems.append(f"{self.largest_bytes:,} bytes for one input")
        return problems


def fuzzed(valid: bytes, read: Callable[[bytes], object]) -> Readings:
    readings = Readings()
    readings.add(lambda: read(valid))

    @settings(
        max_examples=NUM_INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(content=mutated(valid))
    def inputs(content: bytes) -> None:
        readings.add(lambda: read(content))

    inputs()
    return readings


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", READERS)
def test_readers_of_one_file(name, tmp_path):
    valid, read = READERS[name]
    readings = fuzzed(valid, lambda content: read(content, tmp_path))
    assert readings.problems == []
    assert readings.said or name in FORGIVING


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_folder(name, tmp_path):
    file = model_folder(tmp_path) / name
    valid = file.read_bytes()

    def read(content: bytes) -> None:
        file.write_bytes(content)
        load_model(tmp_path)

    readings = fuzzed(valid, read)
    assert readings.problems == []
    assert readings.said


@pytest.mark.parametrize(
    ("name", "read"),
    {
        "recipe.toml": Run.recipe,
        "results.json": Run.results,
        "metrics.csv": Run.metrics,
        "predictions.npz": load_predictions,
        "split.json": lambda run: Split.from_json(files.read_json(run.split_file)),
    }.items(),
)
def test_a_run_folder(name, read, finished_run, tmp_path):
    run = Run(tmp_path)

    def written(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        read(run)

    readings = fuzzed((finished_run / name).read_bytes(), written)
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

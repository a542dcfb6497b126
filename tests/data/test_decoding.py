"""Files to one array: in order, once, whatever happens in between."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentry.data import decoding, load_test, load_train
from latentry.data.decoding import decoded
from latentry.errors import DataError
from latentry.settings import Data


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """20 pictures of one colour each, their number as the red."""
    paths = [tmp_path / f"{number:02}.png" for number in range(20)]
    for number, path in enumerate(paths):
        Image.new("RGB", (24, 16), (number, 0, 0)).save(path)
    return paths


def test_images_keep_their_order_and_broken_ones_are_named(pictures, tmp_path):
    pictures[3].write_bytes(b"")
    for endless in (7, 9):
        pictures[endless].unlink()
    pictures[7].symlink_to("/dev/zero")
    os.mkfifo(pictures[9])
    pictures[11].unlink()
    content = decoded(pictures, 16, "pictures", tmp_path / "cache")
    assert content.images.shape == (16, 3, 16, 16)
    assert content.images[:, 0, 0, 0].tolist() == content.positions.tolist()
    assert content.broken.keys() == {3, 7, 9, 11}
    assert content.broken[3] == "it is empty"
    assert content.broken[7] == content.broken[9] == "it is no file"
    assert "No such file" in content.broken[11]
    assert isinstance(content.images, np.memmap)
    assert not content.images.flags.writeable


def test_a_second_time_nothing_is_decoded_even_if_files_have_other_names(pictures, tmp_path, monkeypatch):
    first = decoded(pictures, 16, "pictures", tmp_path / "cache")
    monkeypatch.setattr(decoding, "read_picture", lambda *_: pytest.fail("decoded again"))
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in pictures]
    again = decoded(moved, 16, "pictures", tmp_path / "cache")
    assert np.array_equal(first.images, again.images)
    assert again.broken == {}


def test_other_content_order_or_size_is_decoded_anew(pictures, tmp_path):
    cache = tmp_path / "cache"
    first = decoded(pictures, 16, "pictures", cache)
    assert not np.array_equal(first.images, decoded(pictures[::-1], 16, "pictures", cache).images)
    assert decoded(pictures, 24, "pictures", cache).images.shape[-1] == 24
    Image.new("RGB", (24, 16), (99, 0, 0)).save(pictures[0])
    assert decoded(pictures, 16, "pictures", cache).images[0, 0, 0, 0] == 99


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", json.dumps({"broken": {"0": "why"}}).encode()])
def test_a_damaged_cache_is_made_again(pictures, tmp_path, damage):
    cache = tmp_path / "cache"
    first = decoded(pictures, 16, "pictures", cache).images.copy()
    (kept,) = (cache / "images").glob("*.json")
    kept.write_bytes(damage)
    assert np.array_equal(decoded(pictures, 16, "pictures", cache).images, first)
    (pixels,) = (cache / "images").glob("*.u8")
    pixels.write_bytes(b"short")
    assert np.array_equal(decoded(pictures, 16, "pictures", cache).images, first)


def test_files_that_change_while_they_are_read_are_not_kept(pictures, tmp_path, monkeypatch):
    genuine = decoding.read_picture

    def changing(content: bytes, image_size: int) -> np.ndarray:
        pictures[-1].write_bytes(pictures[0].read_bytes())
        return genuine(content, image_size)

    monkeypatch.setattr(decoding, "read_picture", changing)
    with pytest.raises(DataError, match="the files of pictures changed while they were read: try again"):
        decoded(pictures, 16, "pictures", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "images").glob("*.json"))
    assert not list((tmp_path / "cache" / "images").glob("*.u8"))


def test_what_a_killed_decoding_left_is_removed(pictures, tmp_path):
    cache = tmp_path / "cache"
    decoded(pictures, 16, "pictures", cache)
    (pixels,) = (cache / "images").glob("*.u8")
    left = pixels.with_name(f".{pixels.name}.abcd_123.partial")
    pixels.rename(left)
    decoded(pictures, 16, "pictures", cache)
    assert not left.exists()


def test_all_cores_decode_and_only_a_few_images_wait(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 3)
    genuine, meeting = decoding.read_picture, threading.Barrier(3)

    def together(content: bytes, image_size: int) -> np.ndarray:
        meeting.wait(timeout=20)  # breaks unless three are at it
        return genuine(content, image_size)

    monkeypatch.setattr(decoding, "read_picture", together)
    assert len(decoded(pictures[:3], 16, "pictures", tmp_path / "cache").images) == 3
    started = []
    answers = decoding.in_threads(lambda path: started.append(path), pictures)
    next(answers)
    assert len(started) <= decoding.AHEAD * 3 + 1
    answers.close()


def test_a_few_broken_images_are_left_out_and_many_are_refused(tmp_path, capfd):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(15):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / name / f"{number:02}.png")
    (tmp_path / "one" / "00.png").write_bytes(b"")
    data = Data(source=str(tmp_path), image_size=16)
    images = load_train(data)
    assert images.counts() == {"one": 14, "two": 15}
    assert images.skipped == ((str(tmp_path / "one" / "00.png"), "it is empty"),)
    assert images.files[0].endswith("01.png")
    assert "1 of 30 images" in capfd.readouterr().err
    (tmp_path / "two" / "00.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 30 images of .* can't be read, the limit is 5%; .*00\.png: it is empty"):
        load_train(data)
    assert [line.split(": ")[0] for line in capfd.readouterr().err.splitlines()] == [
        str(tmp_path / name / "00.png") for name in ("one", "two")
    ]


def test_a_class_of_broken_images_is_refused_and_a_small_one_is_named(tmp_path, capfd):
    for name, count in (("one", 40), ("two", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / name / f"{number:02}.png")
    data = Data(source=str(tmp_path), image_size=16)
    load_train(data)
    assert "fewer than 10 training images of a class (two 1)" in capfd.readouterr().err
    (tmp_path / "two" / "00.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the images of class 'two' can be read"):
        load_train(data)


def test_the_same_folder_has_the_same_hash(toy_folder):
    images = load_train(Data(source=str(toy_folder)))
    assert images.counts() == {"circle": 40, "cross": 40, "stripes": 40}
    with Image.open(toy_folder / "train" / "cross" / "001.png") as picture:
        assert np.array_equal(images.images[41], np.asarray(picture).transpose(2, 0, 1))
    assert load_test(Data(source=str(toy_folder), image_size=24)).images.shape == (60, 3, 24, 24)
    assert load_train(Data(source=str(toy_folder))).sha256 == images.sha256
    assert load_train(Data(source=str(toy_folder), image_size=16)).sha256 != images.sha256

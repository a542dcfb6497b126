"""Old or new, never half."""

import errno
import json

import pytest

from latentry import files
from latentry.errors import RunError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})

    def half_way():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: .*a\.json"):
        half_way()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_write_of_the_same_file_has_left_is_removed(tmp_path):
    others = {".a1.json.abcd_123.partial", ".a[1].json.onnx.abcd_123.partial"}
    for name in (".a[1].json.abcd_123.partial", *others):
        (tmp_path / name).touch()
    files.write_json(tmp_path / "a[1].json", 1)
    assert {file.name for file in tmp_path.iterdir()} == {"a[1].json", *others}


def test_damaged_json_is_named(tmp_path):
    with pytest.raises(RunError, match=r"a\.json is missing"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'{"a": \xff')
    with pytest.raises(RunError, match=r"a\.json is damaged"):
        files.read_json(tmp_path / "a.json")

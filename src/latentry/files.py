"""Writing files so that a reader finds the old state or the new one, never half of one."""

import contextlib
import csv
import glob
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from latentry.errors import RunError

PARTIAL = ".partial"
LARGEST_TEXT_BYTES = 1 << 24
"""Of a JSON file or a table that latentry reads back; one made to be large takes some twenty times that in memory."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    What a process that was killed has left there of the same file is removed first, so one at a time may write it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{PARTIAL}"):  # as mkstemp names them
        left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        # A write to a full disk doesn't say which file it was.
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_ours(folder: Path, *names: str) -> None:
    """Raises RunError if `folder` holds something, and none of the files or folders `names` that we put there."""
    found = folder.iterdir() if folder.is_dir() else ()
    # A process that is killed at its first write leaves part of a file.
    taken = folder.is_file() or not all(path.name.endswith(PARTIAL) for path in found)
    if taken and not any((folder / name).exists() for name in names):
        raise RunError(f"{folder} is there already and holds no {names[0]}: choose another --out")


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces the file at `path` by `content`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replaces the file at `path` by `content` in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Replaces the file at `path` by `content` as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Replaces the file at `path` by a table; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def check_size(path: Path, largest_bytes: int = LARGEST_TEXT_BYTES) -> None:
    """Raises RunError where the file at `path` is larger than what latentry writes there."""
    size = path.stat().st_size
    if size > largest_bytes:
        raise RunError(f"{path} has {size:,} bytes, the limit is {largest_bytes:,}: restore it or train again")


def read_json(path: Path, largest_bytes: int = LARGEST_TEXT_BYTES) -> Any:
    """Returns what the JSON file at `path` holds.

    Raises:
        RunError: the file is missing, larger than `largest_bytes`, or isn't JSON.
    """
    try:
        check_size(path, largest_bytes)
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the run is unfinished or damaged; resume it or train again") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): restore it or train again") from None


def sha256(*parts: bytes | memoryview) -> str:
    """SHA-256 of the concatenated parts, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

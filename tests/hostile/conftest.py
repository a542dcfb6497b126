"""Files that are nearly right, and what reading thousands of them comes to."""

import inspect
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentry.data.pictures import PictureError
from latentry.errors import LatentryError

NUM_INPUTS = int(os.environ.get("LATENTRY_HOSTILE_INPUTS", "500"))
LONGEST_SECONDS, LARGEST_BYTES, LEAST_COVERAGE = 5.0, 1 << 30, 0.9
POISON = [
    *(b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff", b"999999999999", b"-1", b"1e999", b"NaN", b"null", b"true", b'"'),
    *(b"[]", b"{}", b"[" * 2000, b"../../etc/passwd", b"\xed\xa0\x80", b"\n", b",", b"=", b"'''", b"cos\nsystem\n"),
]


LENGTHS = [1, 1, 2, 4, 8, 64, 1024]
BYTES_A_CHANGE, MOST_CHANGES = 24, 4
CHANGES = st.binary(min_size=BYTES_A_CHANGE, max_size=BYTES_A_CHANGE * MOST_CHANGES)
"""Drawn in one piece, which is several times as fast as drawing what a change does, where, and to how much."""


def changed(valid: bytes, changes: bytes) -> bytes:
    """`valid` with a few of its bytes changed, removed, repeated, moved or cut off, as `changes` says."""
    content = bytearray(valid)
    for first in range(0, len(changes) - BYTES_A_CHANGE + 1, BYTES_A_CHANGE):
        kind, length, poison, bit = changes[first : first + 4]
        start = int.from_bytes(changes[first + 4 : first + 8], "little") % max(1, len(content))
        stop = start + LENGTHS[length % len(LENGTHS)]
        put = [*POISON, changes[first + 8 : first + BYTES_A_CHANGE]][poison % (len(POISON) + 1)]
        match kind % 6:
            case 0 if content:
                content[start] ^= 1 << bit % 8
            case 1:
                content[start:start] = put
            case 2:
                content[start:stop] = put
            case 3:
                del content[start:stop]
            case 4:
                content[start:start] = content[start:stop]
            case 5:
                del content[start:]
    return bytes(content)


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
    reached: set[tuple[CodeType, int]] = field(default_factory=set)
    started: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = {line for function in self.functions for line in lines_of(inspect.unwrap(function).__code__)}
        self.codes = {code for code, _ in self.lines}
        Path("/proc/self/clear_refs").write_text("5")  # the largest memory so far is forgotten
        self.bytes_before = most_bytes()

    def trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        """Notes which lines are reached, as `sys.settrace` tells."""
        if frame.f_code not in self.codes:
            return None
        if event == "line":
            self.reached.add((frame.f_code, frame.f_lineno))
        return self.trace

    def add(self, read: Callable[[], object]) -> None:
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, 4 * LONGEST_SECONDS)
        RUN.clear()
        if not self.reached_most:  # tracing takes several times as long as most readers
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

    @property
    def reached_most(self) -> bool:
        return len(self.reached & self.lines) >= LEAST_COVERAGE * len(self.lines)

    @property
    def problems(self) -> list[str]:
        """Empty if each refusal was one line, none took long or much memory, and most lines were reached."""
        problems = [said for said in self.said if not said or "\n" in said] + self.started
        if self.longest_seconds > LONGEST_SECONDS:
            problems.append(f"{self.longest_seconds:.1f} s for one input")
        if (grown := most_bytes() - self.bytes_before) > LARGEST_BYTES:
            problems.append(f"{grown:,} bytes more than before")
        if not self.reached_most:
            missed = sorted(f"{code.co_name}, line {line}" for code, line in self.lines - self.reached)
            problems.append(f"not reached, of {len(self.lines)}: {missed}")
        return problems


def most_bytes() -> int:
    """The most memory that this process had at a time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def lines_of(code: CodeType) -> set[tuple[CodeType, int]]:
    """The lines of a function's body, and of what is defined in it."""
    found = {(code, line) for *_, line in code.co_lines() if line and line > code.co_firstlineno}
    return found.union(*(lines_of(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


@pytest.fixture
def fuzzed(tmp_path: Path) -> Callable[..., Readings]:
    """What a reader says of whole files, of none, and of many that are nearly right."""

    def read_all(
        whole: tuple[bytes, ...], read: Callable[[Any], object], *functions: Callable[..., Any], file: str = ""
    ) -> Readings:
        """`read` takes bytes or None; or the path of `file`, which is there or not. `functions` are to be reached."""
        signal.signal(signal.SIGALRM, hang)
        readings = Readings(functions)

        def try_one(content: bytes | None) -> None:
            if not file:
                readings.add(lambda: read(content))
                return
            if content is None:
                (tmp_path / file).unlink(missing_ok=True)
            else:
                (tmp_path / file).write_bytes(content)
            readings.add(lambda: read(tmp_path / file))

        for content in (*whole, None):
            try_one(content)

        @settings(
            max_examples=NUM_INPUTS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(valid=st.sampled_from(whole), changes=CHANGES)
        def inputs(valid: bytes, changes: bytes) -> None:
            try_one(changed(valid, changes))

        inputs()
        return readings

    return read_all

"""What a waiting person sees: messages on the error stream, bars where that is a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from latentry.processes import place

Item = TypeVar("Item")

console = Console(stderr=True, markup=False, highlight=False, quiet=place().rank > 0)
"""Messages and bars go to the error stream; standard output is for results. Of several processes the first speaks."""


def say(message: str) -> None:
    """Prints a line, however long."""
    console.print(message, soft_wrap=True)


def warn(message: str) -> None:
    """Prints a line about what is not as it should be."""
    console.print(message, style="yellow", soft_wrap=True)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields `items` under a bar of how many are done and the time left; `total` where they have no length."""
    with bar(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    ) as progress:
        yield from progress.track(items, total=total, description=description)


def track_bytes(chunks: Iterable[bytes], total: int | None, description: str) -> Iterator[bytes]:
    """Yields `chunks` under a bar of how many of `total` bytes have come."""
    with bar(
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    ) as progress:
        task = progress.add_task(description, total=total)
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))


def bar(*columns: TextColumn | BarColumn | MofNCompleteColumn | TimeRemainingColumn | DownloadColumn) -> Progress:
    """A bar with `columns`, gone when it is done, silent where the error stream is no terminal."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

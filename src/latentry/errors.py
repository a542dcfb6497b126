"""Everything that latentry tells a user to mend. Imports nothing local."""

import contextlib
from collections.abc import Iterator


class LatentryError(Exception):
    """A mistake that the user can mend: one line that names the value, the limit and the remedy.

    The command line prints the line and leaves with `exit_code`.
    """

    exit_code = 2

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # names and values of files may be of several lines


class DataError(LatentryError):
    """Images, labels or an archive that are missing, damaged or not what was asked for."""


class RecipeError(LatentryError):
    """A recipe that is unknown, or a key or value in it that can't be used."""


class RunError(LatentryError):
    """A run folder that is missing, damaged, unfinished or in the way."""


class DivergenceError(LatentryError):
    """A loss that is no longer a finite number."""


class Interrupted(LatentryError):
    """Ctrl-C or SIGTERM during training; the run can be resumed."""

    exit_code = 130


@contextlib.contextmanager
def continued_with(command: str) -> Iterator[None]:
    """Lets an `Interrupted` from inside name `command` as the way to go on."""
    try:
        yield
    except Interrupted as stopped:
        raise Interrupted(f"{str(stopped).partition(';')[0]}; continue with: {command}") from None

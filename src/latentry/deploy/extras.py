"""Packages that only some commands need."""

import importlib
from types import ModuleType

from latentry.errors import RunError


def extra(name: str, package: str) -> ModuleType:
    """Imports a package that the extra called `name` brings.

    Raises:
        RunError: it isn't installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise RunError(f"{name} needs {package}, which isn't installed: pip install 'latentry[{name}]'") from None

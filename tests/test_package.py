"""The public names, and what importing them costs."""

import subprocess
import sys
import time
from pathlib import Path

import latentry


def test_public_names_are_there():
    for name in latentry.__all__:
        assert getattr(latentry, name) is not None


def test_import_and_help_load_neither_torch_nor_matplotlib():
    code = "import sys, latentry, latentry.cli; print({'torch', 'matplotlib', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_help_is_quick():
    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "latentry", "--help"], capture_output=True, check=True)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 0.4


def test_the_changelog_knows_this_version():
    changelog = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()
    assert f"\n## {latentry.__version__} " in changelog

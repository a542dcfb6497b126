"""The public names, and what importing them costs."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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
        """Of a processor, so that what else the machine does isn't counted."""
        before = os.times()
        subprocess.run([sys.executable, "-m", "latentry", "--help"], capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.4


def test_the_changelog_knows_this_version():
    changelog = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()
    assert f"\n## {latentry.__version__} " in changelog


ROOT = Path(__file__).parents[1]
PERMISSIVE = re.compile(r"^(MIT|BSD|\d-Clause BSD|0BSD|Apache|LLVM|BSL|ISC|MPL|Python Software|PSF|Zlib|CC0)")


@pytest.mark.slow
@pytest.mark.reliability
def test_licences_are_listed_and_ask_for_nothing_in_return():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "licences.py"], capture_output=True, text=True, check=True
    )
    listed, rows = (
        [tuple(line.split(" | ")) for line in text.splitlines() if line.startswith("| ")][1:]
        for text in ((ROOT / "docs" / "licences.md").read_text(), done.stdout)
    )
    assert [name for name, _ in listed] == [name for name, _ in rows]  # releases word the same licence in other ways
    assert len(rows) > 50
    for name, licence in rows:
        parts = re.split(r" AND | OR | WITH |, ", licence.removesuffix(" |"))
        assert all(PERMISSIVE.search(part) for part in parts), (name, licence)


@pytest.mark.slow
@pytest.mark.reliability
def test_the_wheel_holds_what_it_should_and_works_where_the_locked_set_is_installed(tmp_path):
    def run(*words: str | Path, **options) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True, **options).stdout

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("latentry-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "latentry").rglob("*")}
    wanted = {name for name in sources if Path(name).suffix and "__pycache__" not in name}
    assert {name for name in names if name.startswith("latentry/")} == wanted
    assert {Path(name).parts[0] for name in names} == {"latentry", wheel.name.split("-py3")[0] + ".dist-info"}
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--require-hashes", "--requirement", ROOT / "requirements-locked.txt")
    run(python, "-m", "pip", "install", "--no-deps", wheel)
    run(python, "-m", "pip", "check")
    for part in (
        "tests",
        "docs",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "constraints.txt",
        "benchmarks",
        "scripts",
    ):
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / part).symlink_to(ROOT / part)
    found = run(python, "-c", "import latentry; print(latentry.__file__)", cwd=tmp_path)
    assert str(environment) in found
    run(environment / "bin" / "pytest", "-m", "not slow", cwd=tmp_path / "copy")

"""Full disks, folders that can't be written, caches that vanish, two jobs at once: one line each, and nothing lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.reliability,
    pytest.mark.skipif(os.geteuid() != 0, reason="file systems are mounted by root alone"),
]

NOBODY = 65534
SHORT = (
    *("--set", "pretrain.min_steps_per_epoch=0", "--set", "classify.min_steps_per_epoch=0"),
    *("--set", "pretrain.max_epochs=1", "--set", "classify.max_epochs=3", "--seed", "4"),
)


def start(*words: str | Path, before: tuple[str, ...] = (), **options) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "latentry", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*words: str | Path, **options) -> tuple[int, list[str]]:
    """The exit code and the lines on the error stream."""
    process = start(*words, **options)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.splitlines()


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(toy_folder, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    code, errors = finish("train", "quick", "--data", toy_folder, *SHORT, "--test", "--out", run)
    assert code == 0, errors
    return run


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def is_one_line(errors: list[str]) -> bool:
    """The last; those before it are of the training."""
    return errors[-1].startswith("latentry: ") and not any("Traceback" in line for line in errors)


@pytest.mark.parametrize("size", ["64k", "1m", "4m", "8m"])
def test_a_disk_that_fills_up_stops_a_run_that_goes_on_when_it_has_space(whole, disk, toy_folder, size):
    remount(disk, f"size={size}")
    run = disk / "run"
    words = ("train", "quick", "--data", toy_folder, *SHORT, "--out", run)
    code, errors = finish(*words)
    assert code == 2
    assert is_one_line(errors)
    assert "No space left on device; free some space and try again" in errors[-1]
    assert str(run) in errors[-1]
    assert not list(run.rglob("*.partial"))
    remount(disk, "size=200m")
    code, errors = finish("train", "--resume", run) if (run / "recipe.toml").exists() else finish(*words)
    assert code == 0, errors
    assert weights(run) == weights(whole)


@pytest.mark.parametrize("command", ["export", "report", "embed", "predict", "evaluate"])
def test_a_full_disk_leaves_a_finished_run_as_it_was(whole, disk, toy_folder, command):
    remount(disk, "size=200m")
    run = Path(shutil.copytree(whole, disk / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    used = sum(len(content) for content in before.values()) // 1024
    remount(disk, f"size={used + 200}k")
    (disk / "ballast").write_bytes(bytes(100 * 1024))
    further = {"embed": [toy_folder / "test", "--out", disk / "latents.npz"], "predict": [toy_folder / "test"]}
    code, errors = finish(command, run, *further.get(command, []))
    if command in ("predict", "evaluate"):  # which need no space
        assert code == 0, errors
    else:
        assert code == 2
        assert is_one_line(errors)
        assert "No space left on device" in errors[-1]
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert not [path for path in changed if "report" not in path.parts], "what is new there is whole"
    assert not list(disk.rglob("*.partial"))


def test_a_full_disk_under_the_cache_is_named_and_leaves_nothing(disk, toy_folder, tmp_path):
    remount(disk, "size=100k")
    environment = os.environ | {"LATENTRY_CACHE": str(disk)}
    words = ("train", "quick", "--data", toy_folder, *SHORT, "--out", tmp_path / "run")
    code, errors = finish(*words, env=environment)
    assert code == 2
    assert is_one_line(errors)
    assert "No space left on device" in errors[-1]
    assert not (tmp_path / "run").exists()
    remount(disk, "size=100m")
    assert finish(*words, env=environment)[0] == 0
    assert len(list((disk / "images").glob("*.u8"))) == 1


def test_a_folder_that_cannot_be_written_is_named(whole, disk, toy_folder):
    remount(disk, "size=200m")
    run = Path(shutil.copytree(whole, disk / "run"))
    remount(disk, "ro")
    for words in (("train", "quick", "--data", toy_folder, *SHORT, "--out", disk / "new"), ("export", run)):
        code, errors = finish(*words)
        assert code == 2
        assert is_one_line(errors)
        assert "Read-only file system; choose a folder that can be written" in errors[-1]
    assert finish("predict", run, toy_folder / "test")[0] == 0
    assert finish("evaluate", run)[0] == 0, "what is stored is printed"


def test_a_folder_of_somebody_else_is_named(toy_folder, tmp_path):
    place = tmp_path / "elses"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    words = ("train", "quick", "--data", toy_folder, *SHORT, "--out", place / "run")
    code, errors = finish(*words, before=("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"))
    assert code == 2
    assert is_one_line(errors)
    assert "Permission denied; check who may write there" in errors[-1]
    assert str(place) in errors[-1]


def test_a_cache_deleted_under_a_job_and_a_second_job_harm_nobody(whole, toy_folder, tmp_path):
    run, cache = tmp_path / "run", tmp_path / "cache"
    environment = os.environ | {"LATENTRY_CACHE": str(cache)}
    process = start("train", "quick", "--data", toy_folder, *SHORT, "--out", run, env=environment)
    while not (run / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    shutil.rmtree(cache)
    code, errors = finish("train", "--resume", run, env=environment)
    assert code == 2
    assert f"{run} is in use by process {process.pid} on " in errors[-1]
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert weights(run) == weights(whole)


def test_the_lock_of_a_dead_process_is_taken_over(whole, toy_folder, tmp_path):
    run = tmp_path / "run"
    process = start("train", "quick", "--data", toy_folder, *SHORT, "--out", run)
    while not (run / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert (run / ".holder").exists()
    code, errors = finish("train", "--resume", run)
    assert code == 0, errors
    assert weights(run) == weights(whole)

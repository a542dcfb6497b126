"""Killed at any moment, a command leaves the old state or the new, and a run ends with the same weights."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest

from latentry.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.reliability]

NUM_MOMENTS = 50
LONGEST_FAREWELL = 5.0
"""Seconds that Ctrl-C and SIGTERM may take."""
SHORT = (
    *("--set", "model.autoencoder=seed2", "--set", "model.classifier=seed2"),  # the smallest
    *("--set", "pretrain.min_steps_per_epoch=0", "--set", "classify.min_steps_per_epoch=0"),
    *("--set", "pretrain.max_epochs=2", "--set", "classify.max_epochs=3", "--set", "classify.batch_size=24"),
)
TOUCHING = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.rmtree"}
"""What Python tells of before it changes a folder."""


def latentry(words: list[str], environment: dict[str, str], log: Path, last_event: int, counted: str) -> None:
    """In a process of its own: the command, killed as it is about to touch files for the `last_event`-th time."""
    os.environ.update(environment)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["latentry", *words]
    count = 0

    def note(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in TOUCHING or counted not in str(arguments[0]):
            return
        count += 1
        if count == last_event:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    from latentry.cli import main
    from latentry.studies import inspect

    for stage in ("pretrain", "classify"):
        inspect.SETTINGS |= {f"{stage}.max_epochs": 1, f"{stage}.min_steps_per_epoch": 0}
    try:
        main()
    finally:
        if not last_event:
            os.write(stream, f"\n{count} events\n".encode())


class Terminal:
    """Starts commands in a folder of its own, quickly: what they import is there already."""

    def __init__(self, context: ForkServerContext, folder: Path) -> None:
        self.context = context
        self.folder = folder
        self.log = folder / "log"

    def start(self, *words: str | Path, last_event: int = 0) -> multiprocessing.process.BaseProcess:
        environment = {"LATENTRY_CACHE": str(self.folder / "cache")}
        arguments = ([str(word) for word in words], environment, self.log, last_event, str(self.folder))
        process = self.context.Process(target=latentry, args=arguments)
        process.start()
        return process

    def run(self, *words: str | Path, last_event: int = 0) -> int:
        """The exit code, negative where a signal ended it."""
        process = self.start(*words, last_event=last_event)
        process.join(120)
        assert process.exitcode is not None, "it hangs"
        return process.exitcode

    def num_events(self) -> int:
        return int(self.log.read_text().split()[-2])


@pytest.fixture(scope="module")
def context() -> Iterator[ForkServerContext]:
    """A server that has imported what takes long, and forks."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(
        [
            "latentry.pipeline",
            "latentry.evaluation.evaluate",
            "latentry.report.page",
            "latentry.studies.compare",
            "latentry.studies.inspect",
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2])  # so that a forked process finds this module
        yield found


@pytest.fixture
def terminal(context, tmp_path) -> Terminal:
    return Terminal(context, tmp_path)


@pytest.fixture(scope="module")
def whole(context, toy_folder, tmp_path_factory) -> tuple[Path, tuple[str | Path, ...], int, float]:
    """A run that was never stopped, what made it, how often it touched files, and its seconds."""
    terminal = Terminal(context, tmp_path_factory.mktemp("whole"))
    words = ("train", "quick", "--data", toy_folder, "--seed", "3", "--test", *SHORT, "--out")
    assert terminal.run("--version") == 0  # so that the server is there before time is taken
    started = time.perf_counter()
    assert terminal.run(*words, terminal.folder / "run") == 0, terminal.log.read_text()
    return terminal.folder / "run", words, terminal.num_events(), time.perf_counter() - started


@pytest.fixture(scope="module")
def comparison(context, toy_folder, tmp_path_factory) -> tuple[Path, tuple[str | Path, ...], int]:
    """A comparison that was never stopped, what made it, and how often it touched files."""
    terminal = Terminal(context, tmp_path_factory.mktemp("comparison"))
    words = ("compare", "quick", "--data", toy_folder, "--seeds", "2", *SHORT, "--out")
    assert terminal.run(*words, terminal.folder / "reference") == 0, terminal.log.read_text()
    return terminal.folder / "reference", words, terminal.num_events()


@pytest.fixture(scope="module")
def inspection(context, toy_folder, tmp_path_factory) -> tuple[Path, int]:
    """An inspection that was never stopped, and how often it touched files."""
    terminal = Terminal(context, tmp_path_factory.mktemp("inspection"))
    assert terminal.run("inspect", toy_folder, "--out", terminal.folder / "reference") == 0, terminal.log.read_text()
    return terminal.folder / "reference", terminal.num_events()


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def resumed(terminal: Terminal, words: tuple[str | Path, ...], run: Path) -> int:
    return (
        terminal.run("train", "--resume", run, "--test")
        if (run / "recipe.toml").exists()
        else terminal.run(*words, run)
    )


def same_answers(run: Path, reference: Path) -> bool:
    found, wanted = (json.loads((folder / "results.json").read_text()) for folder in (run, reference))
    return all(found[part] == wanted[part] for part in ("validation", "test", "flops", "temperature"))


@pytest.mark.parametrize("number", range(NUM_MOMENTS))
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(whole, terminal, number):
    """Every second one as it is about to touch a file, the others at any time; spread over the whole run."""
    reference, words, num_events, seconds = whole
    run = terminal.folder / "run"
    share = (number // 2 + np.random.default_rng(number).random()) / (NUM_MOMENTS / 2)
    if number % 2:
        assert terminal.run(*words, run, last_event=1 + int(share * num_events)) == -signal.SIGKILL
    else:
        process = terminal.start(*words, run)
        process.join(share * seconds)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), terminal.log.read_text()
    assert resumed(terminal, words, run) == 0, terminal.log.read_text()
    assert weights(run) == weights(reference)
    assert same_answers(run, reference)
    assert (run / "report" / "index.html").read_text().endswith("</html>")
    assert not list(terminal.folder.rglob("*.partial"))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("num_epochs", [1, 2, 4])
def test_a_run_that_is_asked_to_stop_does_so_soon(whole, terminal, sent, num_epochs):
    """In the epoch after the one named: of pretraining, the first of classifying, the last of it."""
    reference, words, *_ = whole
    run = terminal.folder / "run"
    process = terminal.start(*words, run)
    while len(Run(run).metrics()) < num_epochs:
        process.join(0.01)
        assert process.is_alive(), terminal.log.read_text()
    assert process.pid is not None
    os.kill(process.pid, sent)
    started = time.perf_counter()
    process.join(30)
    assert time.perf_counter() - started < LONGEST_FAREWELL
    assert process.exitcode == 130
    assert f"continue with: latentry train --resume {run}" in terminal.log.read_text()
    assert "Traceback" not in terminal.log.read_text()
    assert resumed(terminal, words, run) == 0, terminal.log.read_text()
    assert weights(run) == weights(reference)


def test_an_export_killed_at_any_moment_leaves_the_old_file_or_the_new(whole, terminal):
    run = shutil.copytree(whole[0], terminal.folder / "run")
    exported = run / "model" / "model.onnx"
    exported.write_bytes(b"old")
    assert terminal.run("export", run) == 0, terminal.log.read_text()
    new, num_events = exported.read_bytes(), terminal.num_events()
    for event in range(1, num_events + 1):
        exported.write_bytes(b"old")
        assert terminal.run("export", run, last_event=event) == -signal.SIGKILL
        assert exported.read_bytes() in (b"old", new)
    assert terminal.run("export", run) == 0
    assert exported.read_bytes() == new


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_comparison_killed_at_any_moment_ends_as_if_it_had_not(comparison, terminal, share):
    reference, words, num_events = comparison
    killed = terminal.folder / "killed"
    assert terminal.run(*words, killed, last_event=int(share * num_events)) == -signal.SIGKILL
    assert terminal.run(*words, killed) == 0, terminal.log.read_text()
    found, wanted = (json.loads((folder / "comparison.json").read_text()) for folder in (killed, reference))
    assert found["difference"] == wanted["difference"]
    assert found["per_class"] == wanted["per_class"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.95, 0.99])
def test_an_inspection_killed_at_any_moment_ends_as_if_it_had_not(inspection, terminal, toy_folder, share):
    """What it has written by then is whole."""
    reference, num_events = inspection
    killed = terminal.folder / "killed"
    words = ("inspect", toy_folder, "--out", killed)
    assert terminal.run(*words, last_event=int(share * num_events)) == -signal.SIGKILL
    for path in reference.iterdir():
        assert not (killed / path.name).exists() or (killed / path.name).read_bytes() == path.read_bytes()
    assert terminal.run(*words) == 0, terminal.log.read_text()
    assert {path.name: path.read_bytes() for path in killed.iterdir()} == {
        path.name: path.read_bytes() for path in reference.iterdir()
    }

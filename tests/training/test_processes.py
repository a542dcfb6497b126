"""Several processes that train one run: what one would, and on after one has died."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentry.errors import LatentryError
from latentry.pipeline import train
from latentry.recipe import load_recipe
from latentry.run import Run
from latentry.training.checkpoint import newest

pytestmark = pytest.mark.slow

PLAIN = """
from torch import nn

nn.Dropout.forward = nn.Dropout2d.forward = lambda self, x: x
nn.BatchNorm2d.train = lambda self, mode=True: nn.Module.train(self, False)

from latentry.cli import main

main()
"""
"""latentry without dropout, its norms on their stored statistics: what differs between processes by design."""
ONE_STEP_AN_EPOCH = (
    *("--set", "pretrain.min_steps_per_epoch=0", "--set", "classify.min_steps_per_epoch=0"),
    *("--set", "pretrain.batch_size=96", "--set", "classify.batch_size=96"),
)


def two(*command: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Starts a module or a script as two processes of one thread each."""
    start = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}")
    port = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
    return subprocess.Popen(
        [*start, *port, *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def losses(folder: Path) -> list[float]:
    return [float(row[part]) for row in Run(folder).metrics() for part in ("train_loss", "validation_loss")]


def test_two_processes_have_the_losses_of_one(toy_folder, tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(PLAIN)
    epochs = ("--set", "pretrain.max_epochs=10", "--set", "classify.max_epochs=10")
    rates = ("--set", "pretrain.learning_rate=1e-4", "--set", "classify.learning_rate=1e-4")
    arguments = ("train", "quick", "--data", str(toy_folder), "--precision", "fp32", *ONE_STEP_AN_EPOCH)
    arguments = (*arguments, *epochs, *rates, "--out")
    both = two(str(script), *arguments, str(tmp_path / "two"), "--test")
    output, errors = both.communicate(timeout=300)
    assert both.returncode == 0, errors
    assert output.count("report: ") == 1, "one process speaks"
    assert errors.count("classify epoch 10/10") == 1
    subprocess.run(
        [sys.executable, script, *arguments, tmp_path / "one"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    assert len(losses(tmp_path / "one")) == 40
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert losses(tmp_path / "one")[21] - losses(tmp_path / "one")[39] > 0.003, "something was learned"


@pytest.mark.reliability
def test_processes_of_other_settings_are_refused(toy_folder, tmp_path):
    script = tmp_path / "each_its_own.py"
    script.write_text(
        "import os, sys\nfrom latentry.cli import main\nsys.argv += ['--seed', os.environ['RANK']]\nmain()"
    )
    both = two(str(script), "train", "quick", "--data", str(toy_folder), "--out", str(tmp_path / "run"))
    _, errors = both.communicate(timeout=120)
    assert both.returncode != 0
    assert "latentry: the processes have other images or settings than one another" in errors
    assert "epoch" not in errors


@pytest.mark.reliability
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_is_started_again_and_the_run_ends_as_if_it_had_not(toy_folder, tmp_path, rank):
    epochs = ("--set", "pretrain.max_epochs=4", "--set", "classify.max_epochs=8")
    arguments = ("-m", "latentry", "train", "quick", "--data", str(toy_folder), *ONE_STEP_AN_EPOCH, *epochs, "--out")
    whole = two(*arguments, str(tmp_path / "whole"))
    assert whole.wait(300) == 0
    run = tmp_path / "run"
    both = two(*arguments, str(run), restarts=1)
    while not (run / "metrics.csv").exists() or len((run / "metrics.csv").read_text().splitlines()) < 4:
        assert both.poll() is None, both.communicate()[1]
        time.sleep(0.01)
    children = Path(f"/proc/{both.pid}/task/{both.pid}/children").read_text().split()
    os.kill(int(children[rank - 2]), signal.SIGKILL)
    _, errors = both.communicate(timeout=300)
    assert both.returncode == 0, errors
    assert errors.count("classify epoch 8/8") == 1
    assert errors.count("pretrain epoch 1/4") == 1, "it went on from its last checkpoint"
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, tmp_path / "whole")]
    assert weights[0] == weights[1]


@pytest.mark.reliability
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_processes_that_are_asked_to_stop_do_so_soon(toy_folder, tmp_path, sent):
    run, epochs = tmp_path / "run", ("--set", "classify.max_epochs=300")
    both = two(
        "-m", "latentry", "train", "quick", "--data", str(toy_folder), *ONE_STEP_AN_EPOCH, *epochs, "--out", str(run)
    )
    while not (run / "checkpoints" / "classify" / "last.ckpt").exists():
        assert both.poll() is None, both.communicate()[1]
        time.sleep(0.01)
    both.send_signal(sent)
    started = time.perf_counter()
    both.communicate(timeout=60)
    assert time.perf_counter() - started < 5
    assert newest(run / "checkpoints" / "classify"), "and what it had kept is whole"


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: 10.77.0.1 and 10.77.0.2."""
    names = ("latentry-1", "latentry-2")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    for name in names:
        ip("netns", "add", name)
    try:
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            for link in ("cable", "lo"):
                ip("-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


@pytest.mark.reliability
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces take root and iproute2")
def test_two_hosts_train_what_two_processes_of_one_host_do(hosts, toy_folder, tmp_path):
    epochs = ("--set", "pretrain.max_epochs=2", "--set", "classify.max_epochs=3")
    arguments = ("-m", "latentry", "train", "quick", "--data", str(toy_folder), *ONE_STEP_AN_EPOCH, *epochs, "--out")
    both = two(*arguments, str(tmp_path / "one host"))
    assert both.wait(300) == 0
    agents = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes=2"),
                *("--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29400", "--rdzv-id=latentry"),
                *(f"--local-addr=10.77.0.{number}", f"--rdzv-conf=is_host={number == 1}"),
                *(*arguments, str(tmp_path / "two hosts")),
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"},
        )
        for number, host in enumerate(hosts, 1)
    ]
    for agent in agents:
        _, errors = agent.communicate(timeout=300)
        assert agent.returncode == 0, errors
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("one host", "two hosts")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("processes", "changes", "words"),
    [
        (2, {"classify.batch_size": 95}, "2 processes can't share batches of classify.batch_size = 95"),
        (2, {"control": True}, "leave out --minutes and --control"),
        (32, {}, "32 processes can't share 18 validation images: start fewer"),
    ],
)
def test_what_processes_cannot_share_is_refused(toy_folder, tmp_path, monkeypatch, processes, changes, words):
    for name, value in {"RUN_ID": "x", "RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, str(processes))
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    recipe = load_recipe("quick", {"data.source": str(toy_folder), **changes})
    with pytest.raises(LatentryError, match=words):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()

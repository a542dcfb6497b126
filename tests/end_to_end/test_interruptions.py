"""A run that is killed, interrupted or starved of space ends, once resumed, with the same weights."""

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LIGHT = (
    *("--set", "pretrain.min_steps_per_epoch=0", "--set", "classify.min_steps_per_epoch=0"),
    *("--set", "pretrain.max_epochs=3", "--set", "classify.max_epochs=7", "--set", "classify.batch_size=24"),
    *("--set", "classify.optimizer=muon", "--set", "classify.weight_decay=0", "--standing", "all-train"),
)
# Dropout, a plateau that cuts, early stopping and a frozen part: all that keeps state between epochs.
STATEFUL = (
    *("--set", "model.autoencoder=seed1", "--set", "model.classifier=dense", "--set", "data.image_size=16"),
    *("--set", "pretrain.min_steps_per_epoch=0", "--set", "classify.min_steps_per_epoch=0"),
    *("--set", "pretrain.max_epochs=2", "--set", "classify.max_epochs=30", "--set", "classify.batch_size=32"),
    *("--set", "classify.schedule=plateau", "--set", "classify.plateau_patience=1", "--set", "classify.optimizer=sgd"),
    *("--set", "classify.learning_rate=0.05", "--set", "classify.early_stopping_patience=6"),
    *("--set", "classify.freeze=norm4", "--set", "batches.classify.balanced=true"),
)


def start(*arguments: str, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "latentry", "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*arguments: str, **options) -> tuple[int, str]:
    process = start(*arguments, **options)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def wait_for_epochs(process: subprocess.Popen[str], run: Path, number: int) -> None:
    """Until `metrics.csv` has that many rows."""
    metrics = run / "metrics.csv"
    while not metrics.exists() or len(metrics.read_text().splitlines()) - 1 < number:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def epochs(run: Path) -> list[str]:
    return [",".join(line.split(",")[:10]) for line in (run / "metrics.csv").read_text().splitlines()]


@pytest.fixture(scope="module", params=[LIGHT, STATEFUL], ids=["light", "stateful"])
def whole(request, toy_folder, tmp_path_factory):
    """A run that was never stopped, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    arguments = ("quick", "--data", str(toy_folder), "--seed", "7", *request.param)
    code, errors = finish(*arguments, "--out", str(folder))
    assert code == 0, errors
    return folder, arguments


def test_a_run_stopped_again_and_again_ends_with_the_same_weights(whole, tmp_path):
    """Killed while pretraining, moved, killed while classifying, then Ctrl-C: each time resumed."""
    reference, arguments = whole
    run = tmp_path / "run"
    process = start(*arguments, "--out", str(run))
    stops = ((signal.SIGKILL, 1), (signal.SIGKILL, 5), (signal.SIGINT, 7))
    num_trained = 0
    for sent, num_epochs in stops:
        wait_for_epochs(process, run, num_epochs)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
        num_trained += errors.count(" epoch ")
        assert not (run / "results.json").exists()
        if sent == signal.SIGINT:
            assert process.returncode == 130
            assert f"continue with: latentry train --resume {run}" in errors.splitlines()[-1]
            assert "Traceback" not in errors
        run = run.rename(tmp_path / f"moved after {num_epochs}")
        process = start("--resume", str(run))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert weights(run) == weights(reference)
    assert epochs(run) == epochs(reference)
    # Each stop costs no more than the epoch that it fell into.
    num_trained += errors.count(" epoch ")
    assert num_trained <= len(epochs(reference)) - 1 + len(stops)


@pytest.mark.parametrize("whole", [LIGHT], ids=["light"], indirect=True)
def test_a_run_killed_after_its_last_epoch_adds_none(whole, tmp_path):
    reference, _arguments = whole
    run = shutil.copytree(reference, tmp_path / "run")
    for name in ("results.json", "predictions.npz"):
        (run / name).unlink()
    shutil.rmtree(run / "model")
    autoencoder = run / "checkpoints" / "pretrain" / "autoencoder.safetensors"
    autoencoder.write_bytes(autoencoder.read_bytes()[:-4] + b"lost")
    (run / ".results.json.abcd_123.partial").touch()
    code, errors = finish("--resume", str(run))
    assert code == 0, errors
    assert weights(run) == weights(reference)
    assert epochs(run) == epochs(reference)
    assert not list(run.rglob("*.partial"))
    assert f"{autoencoder} is damaged" in errors
    assert autoencoder.read_bytes() == (reference / autoencoder.relative_to(run)).read_bytes()


@pytest.mark.parametrize("whole", [STATEFUL], ids=["stateful"], indirect=True)
def test_the_stateful_run_uses_its_state(whole):
    reference, _arguments = whole
    rows = [line.split(",") for line in epochs(reference)[1:] if line.startswith("classify")]
    assert len(rows) < 30, "early stopping"
    assert len({row[3] for row in rows}) > 1, "the plateau cuts the learning rate"


@pytest.mark.parametrize("whole", [LIGHT], ids=["light"], indirect=True)
def test_no_space_for_a_checkpoint_is_one_line_and_resumable(whole, tmp_path):
    reference, arguments = whole

    def no_large_files():
        # A file beyond this size fails to be written, as on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    run = tmp_path / "run"
    code, errors = finish(*arguments, "--out", str(run), preexec_fn=no_large_files)
    assert code == 2
    assert "Traceback" not in errors
    assert "File too large" in errors.splitlines()[-1]
    assert not [path for path in run.rglob("*") if path.is_file() and path.suffix in (".ckpt", ".safetensors")]
    code, errors = finish("--resume", str(run))
    assert code == 0, errors
    assert weights(run) == weights(reference)


def test_a_run_whose_images_changed_is_not_resumed(toy_folder, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(toy_folder, data)
    process = start("quick", "--data", str(data), *LIGHT, "--out", str(run))
    wait_for_epochs(process, run, 1)
    process.kill()
    process.communicate()
    (data / "train" / "cross" / "003.png").unlink()
    code, errors = finish("--resume", str(run))
    assert code == 2
    assert "are not those that" in errors.splitlines()[-1]

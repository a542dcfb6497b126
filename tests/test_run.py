"""A run folder belongs to one process at a time, and its results are what they should be."""

import functools
import json
import operator
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentry.errors import RunError
from latentry.evaluation.evaluate import evaluate
from latentry.pipeline import resume, train
from latentry.recipe import load_recipe
from latentry.run import Run

HOLD = """
import sys, time
from pathlib import Path
from latentry.run import Run

with Run(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "one"),
        ("train_images", ["bird"]),
        ("flops.pretrain", None),
        ("network.parameters.encoder", "many"),
        ("temperature", float("nan")),
        ("validation.accuracy", "99 %"),
        ("validation.per_class.0.recall", [1]),
    ],
)
def test_results_of_the_wrong_type_are_named(key, value, finished_run, tmp_path):
    content = json.loads((finished_run / "results.json").read_text())
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    functools.reduce(operator.getitem, path, content)[last] = value
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=rf"results\.json is damaged \({re.escape(key)}: .*\): restore it"):
        Run(tmp_path).results()


def test_the_second_is_told_who_holds_a_folder_and_a_dead_holder_is_followed(finished_run, tmp_path):
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        words = (
            rf"{re.escape(str(folder))} is in use by process {holder.pid} on .* since 2.*: wait until that has ended"
        )
        for write in (lambda: resume(folder), lambda: evaluate(Run.open(folder))):
            with pytest.raises(RunError, match=words):
                write()
        holder.kill()
    started = time.monotonic()
    assert resume(folder).results()["test"] is None
    assert evaluate(Run.open(folder))["test"] is not None
    assert time.monotonic() - started < 30
    assert evaluate(Run.open(folder))["test"] is not None
    assert not (folder / ".holder").exists()


def test_two_do_not_begin_in_one_folder(toy_folder, tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {holder.pid}"):
            train(load_recipe("quick", {"data.source": str(toy_folder), "data.limit": {}}), folder)
        holder.kill()
    assert not (folder / "recipe.toml").exists()


def test_a_folder_can_be_held_again_by_the_same_process(tmp_path):
    for _ in range(2):
        with Run(tmp_path / "run").locked():
            assert f"process {os.getpid()} on" in (tmp_path / "run" / ".holder").read_text()


def test_a_finished_run_keeps_what_others_write_beside_it(finished_run, tmp_path):
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    being_written = folder / "model" / ".model.onnx.abc.partial"
    being_written.touch()
    resume(folder)
    assert being_written.exists()


def test_a_folder_in_which_a_run_died_at_its_first_file_is_free(tmp_path):
    for name in (".recipe.toml.abc.partial", ".holder", ".lock"):
        (tmp_path / name).touch()
    Run.check_free(tmp_path)
    (tmp_path / "page.lock").touch()
    with pytest.raises(RunError, match="is not empty"):
        Run.check_free(tmp_path)


def test_epochs_and_steps_stay_whole_numbers(finished_run):
    rows = [line.split(",")[:3] for line in Run(finished_run).metrics_file.read_text().splitlines()[1:]]
    assert [row[:2] for row in rows] == [["pretrain", "1"], ["classify", "1"]]
    assert all(row[2].isdecimal() for row in rows)


def test_files_that_were_made_to_be_large_are_refused_by_their_size(tmp_path):
    for name, read in (("metrics.csv", Run.metrics), ("results.json", Run.results)):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(100_000_000)
        with pytest.raises(RunError, match=rf"{name} has 100,000,000 bytes, the limit is 16,777,216: restore it"):
            read(Run(tmp_path))


def test_of_a_damaged_list_of_skipped_files_the_rest_is_kept(tmp_path):
    run = Run(tmp_path)
    run.skipped_file.write_text(f"part,file,reason\ntrain,a.png,it is empty\ntrain,{'b' * 200_000},long\n")
    run.write_skipped([("test", "c.png", "it is empty")])
    assert run.skipped_file.read_text() == "part,file,reason\ntrain,a.png,it is empty\ntest,c.png,it is empty\n"

"""benchmarks/step.py: what it prints is of the recipe that it is asked about."""

import re
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

UNITS = "(?:GFLOP/s|images/s|%|ms|s|MiB)"
LINE = re.compile(rf"^ *([A-Za-z-][A-Za-z -]*?) +(-?[\d,]+(?:\.\d+)?) {UNITS}(?: |$)", re.MULTILINE)
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step.py"


def test_the_benchmark_of_a_step_prints_every_number(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["step.py", "seed2", "--images", "128"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    numbers = {words.strip(): float(number.replace(",", "")) for words, number in LINE.findall(printed)}
    assert set(numbers) == {
        *("matrix product", "bare loop", "of the matrix rate", "loading and augmentation", "the Trainer adds"),
        *("-c import latentry", "-m latentry --help", "peak memory"),
    }
    assert all(number > 0 for name, number in numbers.items() if name != "the Trainer adds")
    assert len(re.findall(r"^ +[\d,]+ at once +[\d,]+ +[\d,]+$", printed, re.MULTILINE)) == 3

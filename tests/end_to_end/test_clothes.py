"""A second real dataset, all the way: fetched, looked at, trained on, predicted, embedded."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "clothes.py"
SHORT = (
    *("--set", "pretrain.max_epochs=1", "--set", "pretrain.min_steps_per_epoch=50"),
    *("--set", "classify.max_epochs=2", "--set", "classify.batch_size=128"),
)


def done(*words: str | Path, cwd: Path) -> str:
    result = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_folder_of_clothes_goes_the_whole_way(tmp_path):
    done(SCRIPT, "clothes", "--scale", "0.3", cwd=tmp_path)

    found = done("-m", "latentry", "inspect", "clothes/images", cwd=tmp_path)
    assert "could not be read: 2" in found
    assert (tmp_path / "inspections" / "images" / "index.html").exists()
    content = json.loads((tmp_path / "inspections" / "images" / "inspection.json").read_text())
    assert content["counts"]["train"]["sandal"] == 12
    assert len(content["label_suspects"]) < 150

    learning = ("train", "--data", "clothes/images", "--unlabelled", "clothes/unlabelled", *SHORT, "--test", "--json")
    results = json.loads(done("-m", "latentry", *learning, cwd=tmp_path))
    assert results["unlabelled_images"] == len(list((tmp_path / "clothes" / "unlabelled").iterdir())) > 500
    assert results["skipped"] == {"train": 2, "test": 0}
    assert results["test"]["accuracy"] > 0.6
    assert results["test"]["psnr"] > 12

    predicting = ("predict", "runs/quick-0", "clothes/images/test", "--csv", "--top", "2")
    rows = list(csv.DictReader(done("-m", "latentry", *predicting, cwd=tmp_path).splitlines()))
    right = [Path(row["file"]).parent.name == row["class"] for row in rows]
    assert np.mean(right) == pytest.approx(results["test"]["accuracy"], abs=0.01)
    usual = [row["usual"] == "True" for row in rows]
    assert np.mean(usual) > 0.9

    done("-m", "latentry", "embed", "runs/quick-0", "clothes/images/test", cwd=tmp_path)
    with np.load(tmp_path / "latents.npz", allow_pickle=False) as latents:
        assert len(latents["latents"]) == len(latents["files"]) == 300

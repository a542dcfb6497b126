"""An exported file says what PyTorch says, in five lines and without it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from latentry import cli, files
from latentry.deploy import export as exporting
from latentry.deploy.export import export
from latentry.deploy.predictor import Predictor
from latentry.errors import RunError
from latentry.evaluation.evaluate import load_predictions
from latentry.pipeline import train
from latentry.recipe import load_recipe
from latentry.run import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert export(finished_run, file).largest_difference < 1e-4
    return file


@pytest.mark.parametrize("count", [1, 2, 7])
def test_it_says_what_the_network_says_of_any_number_of_images(exported, finished_run, count):
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    session = onnxruntime.InferenceSession(exported)
    given = session.run(None, {"images": images.transpose(0, 2, 3, 1)})
    answer = Predictor(*load(finished_run), precision="fp32").answer(images)
    expected = (answer.probabilities, answer.latents, answer.reconstructions.transpose(0, 2, 3, 1))
    for one, other in zip(given, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["class_names"]) == ["circle", "cross", "stripes"]
    assert json.loads(properties["usual_error"]) == pytest.approx(Predictor.load(finished_run).config.usual_error)


def load(folder: Path):
    from latentry.models.saved import load_model

    return load_model(folder / "model")


@pytest.mark.slow
def test_the_flagships_network_goes_into_a_file(toy_folder, tmp_path):
    few = {f"{stage}.min_steps_per_epoch": 2 for stage in ("pretrain", "classify")} | {"classify.max_epochs": 1}
    own = {"data.source": str(toy_folder), "data.limit": {}, "data.image_size": 17}
    run = train(load_recipe("flagship", own | few), tmp_path / "run")
    assert export(run.folder, tmp_path / "model.onnx").largest_difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    given = session.run(None, {"images": np.zeros((3, 17, 17, 3), dtype=np.uint8)})
    assert [part.shape for part in given] == [(3, 3), (3, 256, 4, 4), (3, 17, 17, 3)]


@pytest.mark.slow
def test_a_prior_goes_into_the_file(finished_run, tmp_path):
    export(finished_run, tmp_path / "never.onnx", prior={"cross": 0.0})
    images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    chances = onnxruntime.InferenceSession(tmp_path / "never.onnx").run(["probabilities"], {"images": images})[0]
    assert (chances[:, 1] == 0).all()


@pytest.mark.slow
def test_eight_bits_are_measured(finished_run, tmp_path):
    result = export(finished_run, tmp_path / "small.onnx", int8=True)
    run = Run.open(finished_run)
    assert result.validation_accuracy == pytest.approx(run.results()["validation"]["accuracy"], abs=0.06)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    predictions = load_predictions(run)
    shown = predictions["validation_example_images"].transpose(0, 2, 3, 1)
    given = session.run(None, {"images": np.ascontiguousarray(shown)})
    answer = Predictor.load(finished_run).answer(predictions["validation_example_images"])
    assert given[0] == pytest.approx(answer.probabilities, abs=0.1)
    assert list(tmp_path.iterdir()) == [tmp_path / "small.onnx"]


@pytest.mark.slow
def test_eight_bits_are_measured_on_the_images_of_the_run_alone(finished_run, tmp_path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    files.write_json(run / "results.json", Run.open(run).results() | {"dataset_sha256": "of fewer images"})
    with pytest.raises(RunError, match="was trained on have changed: restore them, or leave --int8 out"):
        export(run, tmp_path / "small.onnx", int8=True)
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize("difference", ["nan", "0.002"])
def test_a_file_that_says_something_else_is_not_written(finished_run, tmp_path, monkeypatch, difference):
    monkeypatch.setattr(exporting, "_largest_difference", lambda *_: float(difference))
    with pytest.raises(RunError, match=rf"differs from it by {difference}, the limit is 0\.001"):
        export(finished_run, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_says_what_it_found(finished_run, tmp_path, monkeypatch, capfd):
    file = tmp_path / "model.onnx"
    monkeypatch.setattr(sys, "argv", ["latentry", "export", str(finished_run), "--int8", "--out", str(file)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert not leaving.value.code
    output, errors = capfd.readouterr()
    assert errors == ""
    said = output.splitlines()
    assert re.fullmatch(r"largest difference from PyTorch: \d\S*", said[0])
    assert re.fullmatch(r"validation accuracy: \d+\.\d\d % in fp32, \d+\.\d\d % in int8", said[1])
    assert said[2].endswith(f"MiB: {file}")


def test_an_autoencoder_alone_is_refused(finished_run, tmp_path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = json.loads((run / "model" / "config.json").read_text())
    (run / "model" / "config.json").write_text(json.dumps(config | {"trained_shares": []}))
    with pytest.raises(RunError, match="no trained classifier"):
        export(run, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_run_without_images_to_try_it_on_is_refused(finished_run, tmp_path):
    run = Run(Path(shutil.copytree(finished_run, tmp_path / "run")))
    kept = {name: array for name, array in load_predictions(run).items() if "example" not in name}
    np.savez(run.predictions_file, **kept)
    with pytest.raises(RunError, match=r"predictions\.npz holds no images to try the file on"):
        export(run.folder, tmp_path / "model.onnx")


def test_missing_packages_are_named(finished_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RunError, match=r"needs onnxruntime, which isn't installed: pip install 'latentry\[export\]'"):
        export(finished_run, tmp_path / "model.onnx")


def test_the_five_lines_of_the_readme_run(exported, tmp_path, toy_folder):
    (script,) = re.findall(
        r"```python\n(import json, numpy, onnxruntime.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert len([line for line in script.splitlines() if line]) == 5
    shutil.copy(exported, tmp_path / "model.onnx")
    Image.open(toy_folder / "test" / "cross" / "000.png").resize((90, 60)).save(tmp_path / "picture.png")
    program = f"import sys\nsys.modules['torch'] = sys.modules['latentry'] = None\n{script}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"circle|cross|stripes", done.stdout)

"""The files of a run and of a model that are nearly right."""

import io
from pathlib import Path

import pytest
import torch

from latentry import files
from latentry.data.split import Split
from latentry.evaluation.evaluate import load_predictions
from latentry.models.network import build_network
from latentry.models.saved import FORMAT_VERSION, ModelConfig, load_config, load_model, read_weights, save_model
from latentry.run import Run
from latentry.settings import Model
from latentry.training.checkpoint import loaded

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def write_model(folder: Path) -> None:
    model = Model(autoencoder="seed2", classifier="seed2")
    network = build_network(model, 16, 2, torch.zeros(3), torch.ones(3))
    config = ModelConfig(
        format_version=FORMAT_VERSION,
        class_names=("cat", "dog"),
        image_size=16,
        network=model,
        mean=(0, 0, 0),
        deviation=(1, 1, 1),
        views=1,
        temperature=1.0,
        class_shares=(0.5, 0.5),
        trained_shares=(0.5, 0.5),
    )
    save_model(folder, network, config)


def test_a_checkpoint(fuzzed):
    stream = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "epoch": 1}, stream)
    readings = fuzzed((stream.getvalue(),), loaded, loaded, file="last.ckpt")
    assert readings.problems == []
    assert readings.said


@pytest.mark.parametrize(
    ("name", "functions"),
    {
        "config.json": (load_config, ModelConfig.shares_are_of_the_classes, files.read_json),
        "model.safetensors": (read_weights, load_model),
    }.items(),
)
def test_a_model_folder(name, functions, fuzzed, tmp_path):
    write_model(tmp_path)
    readings = fuzzed(((tmp_path / name).read_bytes(),), lambda _: load_model(tmp_path), *functions, file=name)
    assert readings.problems == []
    assert readings.said


@pytest.mark.parametrize(
    ("name", "read", "functions"),
    [
        ("recipe.toml", lambda run: Run.open(run.folder).recipe(), (Run.open.__func__, Run.recipe)),
        ("results.json", Run.results, (Run.results, files.read_json)),
        ("metrics.csv", Run.metrics, (Run.metrics,)),
        (
            "predictions.npz",
            lambda run: (load_predictions(run), load_predictions(run, "validation")),
            (load_predictions,),
        ),
        ("split.json", lambda run: Split.from_json(files.read_json(run.split_file)), (Split.from_json.__func__,)),
    ],
)
def test_a_run_folder(name, read, functions, fuzzed, finished_run, tmp_path):
    whole = (finished_run / name).read_bytes(), b"[]"
    readings = fuzzed(whole, lambda _: read(Run(tmp_path)), *functions, file=name)
    assert readings.problems == []
    assert readings.said

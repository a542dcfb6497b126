"""The files of a run and of a model that are nearly right."""

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from latentry import files
from latentry.data.split import Split
from latentry.errors import RunError
from latentry.evaluation.evaluate import load_predictions
from latentry.models.network import build_network
from latentry.models.saved import FORMAT_VERSION, ModelConfig, load_config, load_model, read_weights, save_model
from latentry.run import Run
from latentry.settings import Model
from latentry.training.checkpoint import loaded, sealed

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


def checkpoint(**content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def deflated(archive: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as whole, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    return stream.getvalue()


def test_a_checkpoint(fuzzed):
    weights = {"weight": torch.zeros(3_000)}
    whole = checkpoint(state_dict=weights, epoch=1), checkpoint(weights=weights), deflated(checkpoint(weights=weights))

    def read(path: Path) -> object:
        with suppress(FileNotFoundError):
            path.write_bytes(sealed(path.read_bytes()))  # as somebody would who means ill
        return loaded(path)

    readings = fuzzed(whole, read, loaded, file="last.ckpt")
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


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("validation_logits", lambda logits: logits[:, 0]),
        ("validation_labels", lambda labels: labels[1:]),
        ("validation_labels", lambda labels: labels + 1),
        ("validation_example_positions", lambda positions: positions + 99),
        ("validation_example_images", lambda images: images / 255),
        ("train_example_labels", lambda labels: labels[1:]),
    ],
)
def test_predictions_that_do_not_fit_together(name, change, finished_run, tmp_path):
    arrays = load_predictions(Run(finished_run))
    for changed in ({name: change(arrays[name])}, {"train_others": np.zeros(1)}):
        np.savez(tmp_path / "predictions.npz", **(arrays | changed))
        with pytest.raises(RunError, match=r"predictions\.npz is missing or damaged"):
            load_predictions(Run(tmp_path))


def test_a_checkpoint_of_which_a_bit_has_changed(tmp_path):
    written = sealed(checkpoint(state_dict={"weight": torch.zeros(3_000)}))
    path = tmp_path / "last.ckpt"
    path.write_bytes(written)
    assert len(loaded(path)["state_dict"]["weight"]) == 3_000
    for place in (0, len(written) // 2, len(written) - 100, len(written) - 1):
        path.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
        with pytest.raises(RunError, match=r"last\.ckpt is damaged"):
            loaded(path)


def test_what_unpacks_to_far_more(tmp_path):
    for name, read in (("predictions.npz", lambda path: load_predictions(Run(path.parent))), ("last.ckpt", loaded)):
        np.savez_compressed(tmp_path / "bomb.npz", train_example_images=np.zeros((10_000, 3, 32, 32), dtype=np.uint8))
        file = (tmp_path / "bomb.npz").rename(tmp_path / name)
        assert file.stat().st_size < 50_000
        with pytest.raises(RunError, match=r"(is|or) damaged"):
            read(file)

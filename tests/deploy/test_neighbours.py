"""The nearest training images: an image's nearest is itself, the order is by distance, what is kept is checked."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from latentry import files
from latentry.data import load_train
from latentry.deploy.neighbours import neighbours_at_hand, neighbours_of
from latentry.deploy.predictor import Predictor
from latentry.models.saved import load_model, save_model
from latentry.run import Run


@pytest.fixture(scope="module")
def predictor(finished_run: Path) -> Predictor:
    return Predictor.load(finished_run)


def test_an_image_of_training_is_its_own_nearest(finished_run, predictor):
    run = Run.open(finished_run)
    neighbours = neighbours_of(run, predictor)
    images = load_train(run.recipe().data)
    asked = neighbours.indices[[3, 40, 77]]
    found, distances = neighbours.nearest(predictor.answer(images.images[asked]).latents, 5)
    assert found[:, 0].tolist() == asked.tolist()
    assert (distances[:, 0] < 0.01 * distances[:, 1]).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    assert neighbours.class_name(asked[0]) == images.class_names[images.labels[asked[0]]]
    everyone, _ = neighbours.nearest(predictor.answer(images.images[asked]).latents, 1000)
    assert sorted(everyone[0]) == sorted(neighbours.indices)


def test_distances_are_those_of_the_latents_themselves(finished_run, predictor):
    """64 components of 102 images keep nearly all of them, so the nearest by components are the nearest by latents."""
    neighbours = neighbours_of(Run.open(finished_run), predictor)
    latents = predictor.answer(neighbours.images.images[neighbours.indices]).latents.reshape(
        len(neighbours.indices), -1
    )
    whole = np.linalg.norm(latents[:1] - latents, axis=1)
    found, distances = neighbours.nearest(latents[:1], len(latents))
    by_components = dict(zip(found[0].tolist(), distances[0].tolist(), strict=True))
    ours = np.array([by_components[index] for index in neighbours.indices.tolist()])
    assert (ours <= whole + 0.05 * whole.max()).all()
    assert np.corrcoef(ours, whole)[0, 1] > 0.95


def test_what_is_damaged_or_another_models_is_made_again(finished_run, tmp_path, capsys):
    run = Run(Path(shutil.copytree(finished_run, tmp_path / "run")))
    first = neighbours_of(run, Predictor.load(run.folder))
    with np.load(run.neighbours_file) as content:
        arrays = dict(content)
    for spoil in (None, {}, {"points": arrays["points"][:3]}, {"mean": arrays["mean"][:3]}):
        if spoil is None:
            run.neighbours_file.write_bytes(run.neighbours_file.read_bytes()[:1000])
        else:
            np.savez(run.neighbours_file, **({"belongs": arrays["belongs"]} if not spoil else arrays | spoil))
        assert np.array_equal(neighbours_of(run, Predictor.load(run.folder)).points, first.points)
    network, config = load_model(run.model_folder)
    with torch.no_grad():
        network.encoder.stem[0].weight.mul_(-1)
    save_model(run.model_folder, network, config)
    assert not np.allclose(neighbours_of(run, Predictor.load(run.folder)).points, first.points)
    assert neighbours_at_hand(finished_run / "model", Predictor.load(finished_run)) is None
    assert "without neighbours:" in capsys.readouterr().err


def test_where_nothing_can_be_kept_they_are_found_all_the_same(finished_run, predictor, tmp_path, monkeypatch, capsys):
    run = Run(Path(shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("neighbours.npz"))))

    def read_only(*_):
        raise PermissionError(13, "Permission denied", str(run.neighbours_file))

    monkeypatch.setattr(files, "replacing", read_only)
    assert len(neighbours_of(run, predictor).points) == len(neighbours_of(Run.open(finished_run), predictor).points)
    assert "neighbours are not kept for the next time" in capsys.readouterr().err

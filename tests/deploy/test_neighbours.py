"""The nearest training images: an image's nearest is itself, the order is by distance, what is kept is checked."""

from pathlib import Path

import numpy as np
import pytest

from latentry.data import load_train
from latentry.deploy.neighbours import neighbours_at_hand, neighbours_of
from latentry.deploy.predictor import Predictor
from latentry.errors import RunError
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
    assert (distances[:, 0] < 0.05 * distances[:, 1]).all()
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


def test_what_is_damaged_or_gone_is_named(finished_run, predictor, tmp_path, capsys):
    run = Run.open(finished_run)
    neighbours_of(run, predictor)
    whole = run.neighbours_file.read_bytes()
    run.neighbours_file.write_bytes(whole[:1000])
    try:
        with pytest.raises(RunError, match=r"neighbours\.npz is damaged: remove it"):
            neighbours_of(run, predictor)
    finally:
        run.neighbours_file.write_bytes(whole)
    assert neighbours_at_hand(finished_run / "model", predictor) is None
    assert "without neighbours:" in capsys.readouterr().err

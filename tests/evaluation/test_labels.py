"""Planted label errors are found, and few others."""

import numpy as np
import pytest

from latentry.evaluation.labels import confident_errors


def predicted(labels: np.ndarray, generator: np.random.Generator, sureness: float) -> np.ndarray:
    scores = generator.normal(size=(len(labels), 4))
    scores[np.arange(len(labels)), labels] += sureness
    shares = np.exp(scores)
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("sureness", [5.0, 7.0])
def test_planted_errors_are_found(sureness):
    generator = np.random.default_rng(0)
    truth = generator.choice(4, 2_000, p=[0.4, 0.3, 0.2, 0.1])
    chances = predicted(truth, generator, sureness)
    planted = generator.choice(2_000, 60, replace=False)
    labels = truth.copy()
    labels[planted] = (labels[planted] + 1) % 4
    found = confident_errors(labels, chances)
    suspects = {position for position, _, _ in found}
    assert len(suspects & set(planted.tolist())) > 0.75 * 60
    assert len(suspects - set(planted.tolist())) < 20
    right = [seems == truth[position] for position, seems, _ in found if position in set(planted.tolist())]
    assert np.mean(right) > 0.95
    margins = [margin for *_, margin in found]
    assert margins == sorted(margins, reverse=True)


def test_by_hand():
    labels = np.array([0, 0, 0, 1, 1])
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.45, 0.55]])
    # On average class 0 has 0.6 on its own images, class 1 has 0.625.
    assert confident_errors(labels, chances) == [(2, 1, pytest.approx(0.8))]
    assert confident_errors(labels, np.full((5, 2), 0.5)) == []
    assert confident_errors(np.array([0, 0]), np.array([[0.2, 0.8], [0.6, 0.4]])) == []

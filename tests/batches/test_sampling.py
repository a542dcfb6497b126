"""Balanced oversampling, and training on a share of the labels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentry.batches.sampling import class_weights, labelled, oversampled, shares_in_training
from latentry.errors import RecipeError


@given(counts=st.lists(st.integers(0, 30), min_size=2, max_size=5).filter(lambda counts: max(counts) > 0))
def test_oversampling_equalises_and_keeps_every_image(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    positions = oversampled(labels, torch.Generator().manual_seed(0))
    balanced = torch.bincount(labels[positions], minlength=len(counts)).tolist()
    assert balanced == [max(counts) if count else 0 for count in counts]
    assert set(positions.tolist()) == set(range(len(labels)))


@given(share=st.floats(0.01, 1), counts=st.lists(st.integers(1, 60), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_a_share_of_the_labels_keeps_each_class_as_frequent(share, counts, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    positions = labelled(labels, share, seed)
    assert np.array_equal(labels[positions], labels)
    for label, count in enumerate(counts):
        visited, visits = np.unique(positions[labels == label], return_counts=True)
        assert len(visited) == max(1, round(share * count))
        assert visits.max() - visits.min() <= 1
    assert np.array_equal(positions, labelled(labels, share, seed))


def test_all_labels_are_the_images_themselves_and_seeds_draw_differently():
    labels = np.repeat([0, 1], 50)
    assert np.array_equal(labelled(labels, 1.0, 3), np.arange(100))
    assert not np.array_equal(labelled(labels, 0.2, 3), labelled(labels, 0.2, 4))


def test_balanced_weights_make_classes_count_alike():
    counts = {"bird": 10, "cat": 40, "deer": 50}
    weights = class_weights("balanced", counts)
    assert weights is not None
    assert torch.allclose(weights * torch.tensor([10.0, 40.0, 50.0]), torch.tensor(100 / 3))
    assert shares_in_training(counts, weights, balanced=False) == pytest.approx([1 / 3] * 3)
    assert shares_in_training(counts, balanced=True) == pytest.approx([1 / 3] * 3)
    assert shares_in_training(counts, balanced=False) == pytest.approx([0.1, 0.4, 0.5])
    assert shares_in_training(counts, None, 1.0, balanced=False) == pytest.approx([1 / 3] * 3)
    assert class_weights("none", counts) is None
    assert class_weights({"cat": 2.0}, counts).tolist() == [1, 2, 1]
    with pytest.raises(RecipeError, match=r"names 'dog'; the classes are bird, cat, deer"):
        class_weights({"dog": 2.0}, counts)

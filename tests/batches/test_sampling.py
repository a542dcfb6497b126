"""Balanced oversampling."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from latentry.batches.sampling import oversampled


@given(counts=st.lists(st.integers(0, 30), min_size=2, max_size=5).filter(lambda counts: max(counts) > 0))
def test_oversampling_equalises_and_keeps_every_image(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    positions = oversampled(labels, torch.Generator().manual_seed(0))
    balanced = torch.bincount(labels[positions], minlength=len(counts)).tolist()
    assert balanced == [max(counts) if count else 0 for count in counts]
    assert set(positions.tolist()) == set(range(len(labels)))

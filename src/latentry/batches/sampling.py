"""Which images an epoch visits, and in which order."""

import numpy as np
import torch
from torch import Tensor


def labelled(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Positions into `labels` (N,), N of them, that visit only a random `share` of each class, over and over.

    Every class keeps its number of visits, so that an epoch costs the same whatever the share; at least one image a
    class is labelled.
    """
    generator = np.random.default_rng(seed)
    positions = np.arange(len(labels))
    if share == 1:
        return positions
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kept = generator.permutation(members)[: max(1, round(share * len(members)))]
        positions[members] = np.resize(np.sort(kept), len(members))
    return positions


def oversampled(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Positions into `labels` in which every class is as frequent as the largest.

    `labels` is int64 of shape (N,). Every position appears at least once; smaller classes are filled up by random
    draws with replacement, as imbalanced-learn's `RandomOverSampler` does.
    """
    counts = torch.bincount(labels)
    most = int(counts.max())
    parts = [torch.arange(len(labels))]
    for label, count in enumerate(counts.tolist()):
        if 0 < count < most:
            members = torch.nonzero(labels == label).squeeze(1)
            parts.append(members[torch.randint(0, count, (most - count,), generator=generator)])
    return torch.cat(parts)


def shuffled(positions: Tensor, generator: torch.Generator) -> Tensor:
    """`positions` in random order."""
    return positions[torch.randperm(len(positions), generator=generator)]

"""Which images an epoch visits, and in which order."""

import torch
from torch import Tensor


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

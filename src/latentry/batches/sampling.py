"""Which images an epoch visits, in which order, and how much each class counts."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from latentry.errors import RecipeError


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


def class_weights(wanted: Literal["none", "balanced"] | dict[str, float], counts: dict[str, int]) -> Tensor | None:
    """Weight of each class in the loss, float32 of shape (K,); None for equal ones.

    `counts` is class name to number of training images. "balanced" weights by their inverse, mean 1 over the images.

    Raises:
        RecipeError: a class is named that there isn't.
    """
    if wanted == "none":
        return None
    if wanted == "balanced":
        numbers = torch.tensor(list(counts.values()), dtype=torch.float32)
        return numbers.sum() / (len(numbers) * numbers)
    unknown = sorted(set(wanted) - set(counts))
    if unknown:
        raise RecipeError(f"classify.class_weight names {unknown[0]!r}; the classes are {', '.join(counts)}")
    return torch.tensor([wanted.get(name, 1.0) for name in counts], dtype=torch.float32)


def shares_in_training(
    counts: dict[str, int], weights: Tensor | None = None, logit_adjustment: float = 0.0, *, balanced: bool
) -> tuple[float, ...]:
    """What share of the classifier's attention each class had: of its images, or alike when oversampled, weighted.

    Logits that were adjusted in training answer as if the shares had been taken to the power of what was left.
    """
    shares = torch.ones(len(counts)) if balanced else torch.tensor(list(counts.values()), dtype=torch.float32)
    shares = shares ** (1 - logit_adjustment)
    if weights is not None:
        shares = shares * weights
    return tuple((shares / shares.sum()).tolist())


def shuffled(positions: Tensor, generator: torch.Generator) -> Tensor:
    """`positions` in random order."""
    return positions[torch.randperm(len(positions), generator=generator)]

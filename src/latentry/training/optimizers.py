"""Optimizers and learning-rate schedules by their recipe names."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from latentry.recipe import Stage


def build_optimizer(parameters: Iterable[nn.Parameter], settings: Stage) -> Optimizer:
    """Returns the optimizer over the parameters that need gradients; weight decay is left off biases and norms."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = settings.learning_rate
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=settings.momentum > 0)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate)
    assert settings.optimizer == "adamw"
    return torch.optim.AdamW(groups, lr=rate)


def learning_rate_factor(settings: Stage, step: int, total_steps: int) -> float:
    """What the peak learning rate is multiplied by at `step`, counted from 0, of `total_steps`."""
    if settings.schedule in ("constant", "plateau"):
        return 1.0
    low = settings.final_learning_rate_factor
    done = min(1.0, step / max(1, total_steps))
    warmup = settings.warmup if settings.schedule == "one-cycle" else 0.0
    if done < warmup:
        return low + (1 - low) * done / warmup
    return low + (1 - low) * (1 - done) / (1 - warmup)


def build_plateau(optimizer: Optimizer, settings: Stage) -> ReduceLROnPlateau:
    """Cuts the learning rate when the validation loss has stalled (Keras' ReduceLROnPlateau)."""
    return ReduceLROnPlateau(
        optimizer,
        factor=settings.plateau_factor,
        patience=settings.plateau_patience - 1,  # torch waits for one epoch more than Keras
        threshold=1e-4,
        threshold_mode="abs",
        cooldown=max(0, settings.plateau_cooldown - 1),  # and counts the epoch after a cut, which Keras doesn't
        min_lr=settings.minimum_learning_rate,
    )


def step_schedule(optimizer: Optimizer, settings: Stage, total_steps: int) -> LambdaLR:
    """Moves the learning rate after every step by `learning_rate_factor`."""
    return LambdaLR(optimizer, lambda step: learning_rate_factor(settings, step, total_steps))

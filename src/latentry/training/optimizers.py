"""Optimizers and learning-rate schedules by their recipe names."""

import abc
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from latentry.runtime import resolve_precision
from latentry.settings import Stage

KERAS_EPSILON = 1e-7
ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8
NEWTON_SCHULZ_STEPS = 3


class KerasAdam(torch.optim.Adam):
    """Adam with epsilon beside the root before its correction ("epsilon hat": Kingma and Ba 2014, section 2).

    Source: Keras 3, keras/src/optimizers/adam.py.
    """

    def __init__(self, parameters: Iterable[Any], lr: float) -> None:
        super().__init__(parameters, lr=lr, fused=True)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            group["num_steps"] = group.get("num_steps", 0) + 1
            group["eps"] = KERAS_EPSILON / (1 - group["betas"][1] ** group["num_steps"]) ** 0.5
        return super().step(closure)


class WeightByWeight(torch.optim.Optimizer, abc.ABC):
    """An optimizer that moves every weight that has a gradient on its own."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.move(weight, weight.grad, self.state[weight], group)
        return loss

    @abc.abstractmethod
    def move(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Takes one step with `weight`, in place; `state` is its own, and empty at first."""


class KerasRMSprop(WeightByWeight):
    """RMSprop with rho 0.9 and epsilon inside the root, where torch and Keras 2 have it outside.

    The mean squared error of pixels has gradients so small that the two are different optimizers (docs/results.md).
    Source: Keras 3, keras/src/optimizers/rmsprop.py.
    """

    def __init__(self, parameters: Iterable[Any], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def move(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["mean_square"] = torch.zeros_like(weight)
        state["mean_square"].mul_(0.9).addcmul_(gradient, gradient, value=0.1)
        weight.addcdiv_(gradient, (state["mean_square"] + KERAS_EPSILON).sqrt_(), value=-group["lr"])


class Muon(WeightByWeight):
    """Orthogonalised momentum for filters, which keep a norm of the root of their number; Adam for all else.

    The groups of filters have the key "filters"; `lr` is theirs.

    Source: Jordan 2024, github.com/KellerJordan/cifar10-airbench, airbench94_muon.py; of all else Kingma and Ba 2014.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "filters": False})

    def move(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if group["filters"]:
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].mul_(group["momentum"]).add_(gradient)
            ahead = gradient.add(state["momentum"], alpha=group["momentum"])
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            weight.sub_(orthogonalised(ahead.flatten(1)).view(weight.shape).to(weight.dtype), alpha=group["lr"])
            return
        if not state:
            state["step"] = torch.tensor(0.0)
            state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
        adam(
            *([weight], [gradient], [state["mean"]], [state["square"]], [], [state["step"]]),
            amsgrad=False,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=ADAM_EPSILON,
            maximize=False,
        )


def orthogonalised(matrix: Tensor) -> Tensor:
    """`matrix` (M, N) with its singular values drawn towards 1, in bf16 where the processor has it.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon, a Newton-Schulz iteration of fifth order.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    result = wide / (wide.norm() + 1e-7)
    if resolve_precision("auto", matrix.device) == "bf16":
        result = result.bfloat16()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = result @ result.T
        result = torch.addmm(result, torch.addmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    turned: Tensor = result if wide is matrix else result.T
    return turned


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
        nesterov = settings.nesterov and settings.momentum > 0
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov)
    if settings.optimizer == "muon":
        filters, rest = ([weight for weight in trained if (weight.ndim == 4) is wanted] for wanted in (True, False))
        sides = [{"params": filters, "filters": True}, {"params": rest, "lr": settings.rest_learning_rate}]
        return Muon([side for side in sides if side["params"]], rate, settings.momentum)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate)
    if settings.optimizer == "keras-adam":
        return KerasAdam(groups, lr=rate)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, alpha=0.9, eps=KERAS_EPSILON)
    if settings.optimizer == "keras-rmsprop":
        return KerasRMSprop(groups, lr=rate)
    assert settings.optimizer == "adamw"
    return torch.optim.AdamW(groups, lr=rate)


def learning_rate_factor(settings: Stage, step: int, total_steps: int) -> float:
    """What the peak learning rate is multiplied by at `step`, counted from 0, of `total_steps`."""
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

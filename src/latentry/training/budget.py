"""How many epochs fit into a number of minutes, from measured steps."""

import math
import statistics
import time

import torch

from latentry.batches.loader import Loader
from latentry.errors import RecipeError
from latentry.recipe import Recipe
from latentry.runtime import Precision, autocast
from latentry.training.optimizers import build_optimizer
from latentry.training.stage import StageModule

NUM_WARM_STEPS = 3
NUM_TIMED_STEPS = 9
LONGEST_TIMING_SECONDS = 10
"""After as long as this, two steps are enough."""
MARGIN = 1.1
"""Steps of a whole run, with loading, logging and checkpoints, against the bare ones that are timed."""
SECONDS_AN_EPOCH = 0.2
"""For the checkpoints and the metrics of every epoch, however short."""
FORWARD_SHARE = 1 / 3


def epoch_seconds(module: StageModule, loader: Loader, num_held_out: int, precision: Precision) -> float:
    """Seconds that one epoch of `module` over `loader` takes, validation on `num_held_out` images included.

    Measured on a copy, by a few steps after a few that don't count; `module` is untouched.
    """
    probe = module.probe()
    parameters = [parameter for part in probe.trained() for parameter in part.parameters()]
    optimizer = build_optimizer(parameters, probe.settings)
    seconds = []
    batches = iter(loader)
    for _ in range(min(len(loader), NUM_WARM_STEPS + NUM_TIMED_STEPS)):
        started = time.perf_counter()
        batch = next(batches)
        with autocast(loader.device, precision):
            loss = probe.losses(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loader.device.type == "cuda":
            torch.cuda.synchronize(loader.device)
        seconds.append(time.perf_counter() - started)
        if len(seconds) > 1 and sum(seconds) > LONGEST_TIMING_SECONDS:
            break
    step_seconds = statistics.median(seconds[NUM_WARM_STEPS:] or seconds[1:] or seconds)
    steps = len(loader) + FORWARD_SHARE * num_held_out / loader.batch_size
    return MARGIN * step_seconds * steps + SECONDS_AN_EPOCH


def fit_epochs(
    recipe: Recipe, minutes: float, *, pretrain_seconds: float, classify_seconds: float, other_seconds: float
) -> Recipe:
    """Returns `recipe` with as many epochs as `minutes` allow, the stages in the proportion that it has.

    `pretrain_seconds` and `classify_seconds` are those of one epoch; a control takes as long again.

    Raises:
        RecipeError: not even one epoch of each stage fits; names the minutes that would do.
    """
    planned = {"pretrain": recipe.pretrain.max_epochs, "classify": recipe.classify.max_epochs}
    lead = "classify" if planned["classify"] else "pretrain"
    runs = 2 if recipe.control else 1
    allowed = 60 * minutes / runs

    def epochs(number: int) -> dict[str, int]:
        return {name: max(1, round(count / planned[lead] * number)) if count else 0 for name, count in planned.items()}

    def seconds(number: int) -> float:
        chosen = epochs(number)
        return chosen["pretrain"] * pretrain_seconds + chosen["classify"] * classify_seconds + other_seconds

    if seconds(1) > allowed:
        least = math.ceil(runs * seconds(1) / 6) / 10
        what = "one epoch of each stage" + ", of the run and of its control," * recipe.control
        raise RecipeError(f"--minutes {minutes:g} is too short: {what} takes {least:g} minutes")
    number = max(1, int(allowed / (classify_seconds if lead == "classify" else pretrain_seconds)))
    while seconds(number) > allowed:
        number -= 1
    return recipe.changed({f"{stage}.max_epochs": count for stage, count in epochs(number).items()})

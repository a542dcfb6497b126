"""What validation images tell of a network's answers: how sure to be of them, and which images look unusual."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from latentry.data.imageset import ImageSet
from latentry.errors import RunError
from latentry.evaluation.evaluate import Measured
from latentry.models.saved import load_config
from latentry.progress import say
from latentry.recipe import Recipe
from latentry.run import Run

USUAL_SHARE = 0.99
"""Share of the validation images whose reconstruction error counts as usual."""
HOTTEST = 20.0


class Calibration(NamedTuple):
    """What validation images tell of a network's answers.

    Attributes:
        temperature: what its logits are divided by, as they are.
        corrected_temperature: the same where the answers are then moved to how frequent classes are.
        usual_error: the squared error that few images exceed; None where it isn't known.
    """

    temperature: float = 1.0
    corrected_temperature: float = 1.0
    usual_error: float | None = None


def calibrated(measured: Measured, recipe: Recipe, ratio: np.ndarray) -> Calibration:
    """What the validation images tell; `ratio` (K,) is `log_ratio` of classes in the data to classes in training."""
    temperatures = (1.0, 1.0)
    if recipe.classify.max_epochs:
        logits, labels = measured.arrays["logits"], measured.arrays["labels"]
        temperatures = (fit_temperature(logits, labels), fit_temperature(logits, labels, ratio))
    usual_error = float(np.quantile(measured.errors, USUAL_SHARE)) if recipe.trains_decoder else None
    return Calibration(*temperatures, usual_error)


def borrowed_calibration(recipe: Recipe, images: ImageSet) -> Calibration:
    """That of the run `evaluate.temperature_from`; none where that is empty.

    Raises:
        RunError: that is no finished held-out run of the same recipe on the same `images`.
    """
    lender = recipe.evaluate.temperature_from
    if not lender:
        if recipe.data.standing == "all-train":
            say("not calibrated: evaluate.temperature_from names no held-out run")
        return Calibration()
    run = Run.open(Path(lender))
    results, lent = run.results(), run.recipe()
    same_data = lent.data.changed({"standing": recipe.data.standing}) == recipe.data
    same_data = same_data and results["dataset_sha256"] == images.sha256
    same_way = _calibrated_alike(lent) == _calibrated_alike(recipe)
    if results["validation"] is None or not results["trained_classifier"] or not same_data or not same_way:
        raise RunError(
            f"evaluate.temperature_from = {lender} ({lent.name}, {lent.data.standing}) is no held-out run of "
            f"{recipe.name} on the same data with the same network, batches, loss and views: name one that is"
        )
    lent_config = load_config(run.model_folder)
    return Calibration(float(results["temperature"]), lent_config.temperature, lent_config.usual_error)


def _calibrated_alike(recipe: Recipe) -> tuple[Any, ...]:
    """What two runs share if the temperature of one does for the other."""
    fields = "label_smoothing", "class_weight", "class_weight_after", "logit_adjustment", "reconstruction_weight"
    views = recipe.evaluate.views
    return recipe.name, recipe.model, recipe.batches, views, recipe.classify.model_dump(include=set(fields))


def fit_temperature(logits: np.ndarray, labels: np.ndarray, log_ratio: np.ndarray | float = 0.0) -> float:
    """The temperature, between 1/20 and 20, under which `labels` (N,) are likeliest given logits (N, K).

    `log_ratio` (K,) is added to what the temperature divided: how much likelier classes are here than in training.

    It reckons with two images more than there are, one of which is taken for another class: else a few images that are
    all recognised would make every answer certain.

    Sources: Guo et al. 2017, arXiv 1706.04599; Platt 1999, section 2.2 (the targets).
    """
    doubt = 1 / (len(labels) + 2)
    targets = np.full(logits.shape, doubt / (logits.shape[1] - 1))
    targets[np.arange(len(labels)), labels] = 1 - doubt

    def negative_log_likelihood(log_temperature: float) -> float:
        scores = log_softmax(logits.astype(np.float64) / np.exp(log_temperature) + log_ratio, axis=1)
        return float(-(targets * scores).sum(axis=1).mean())

    bounds = (-np.log(HOTTEST), np.log(HOTTEST))
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x))

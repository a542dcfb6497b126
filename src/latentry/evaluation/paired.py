"""Whether one way of training beats another, from pairs of runs of one seed and split, asked the same images."""

import dataclasses
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8
EFFECT = 0.01
"""One point of accuracy: what `seeds_needed` is asked to show."""
MOST_SEEDS = 10_000
SEEDS_FOR_A_CLAIM = 5
SMALLEST_DEVIATION = 1e-9
"""Differences that agree to the last image leave no spread to judge by, whatever rounding adds."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Predictions of two runs on the same images: int arrays of shape (N,)."""

    labels: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def difference(self, label: int | None = None) -> float:
        """Accuracy of the first less that of the second, over all images or over those of one class."""
        chosen = slice(None) if label is None else self.labels == label
        truth = self.labels[chosen]
        return float((self.first[chosen] == truth).mean() - (self.second[chosen] == truth).mean())

    def mcnemar(self) -> float:
        """Two-sided exact p of the images that just one of the two got right.

        Source: McNemar 1947; the exact form is a sign test.
        """
        first, second = self.first == self.labels, self.second == self.labels
        only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
        if only_first + only_second == 0:
            return 1.0
        return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def interval(differences: list[float], num_looks: int = 1) -> tuple[float, float] | None:
    """Paired-t 95 % confidence interval of the mean difference; None for a single one, or where all are the same.

    `num_looks` widens it (Bonferroni) so that as many intervals as that hold together.
    """
    count, deviation = len(differences), _deviation(differences)
    if deviation is None:
        return None
    quantile = stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / num_looks, count - 1)
    half = float(quantile * deviation / np.sqrt(count))
    mean = float(np.mean(differences))
    return mean - half, mean + half


def seeds_needed(differences: list[float]) -> int | None:
    """How many pairs it takes to show a true difference of one point with 80 % power; None where `interval` is None.

    From the deviation of these differences, with t quantiles; 10,000 stands for that many or more.
    """
    deviation = _deviation(differences)
    if deviation is None:
        return None
    for count in range(2, MOST_SEEDS):
        quantiles = stats.t.ppf(1 - (1 - CONFIDENCE) / 2, count - 1) + stats.t.ppf(POWER, count - 1)
        if quantiles * deviation / np.sqrt(count) <= EFFECT:
            return count
    return MOST_SEEDS


def _deviation(differences: list[float]) -> float | None:
    """Sample standard deviation, None where there is nothing to tell it by."""
    deviation = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    return deviation if deviation > SMALLEST_DEVIATION else None


def judged(bounds: tuple[float, float] | None) -> str:
    """ "better", "worse" or "no difference shown", of the first, by an interval; "not judged" without one."""
    if bounds is None:
        return "not judged"
    low, high = bounds
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def compared(pairs: list[Pair], class_names: tuple[str, ...], names: tuple[str, str], part: str) -> dict[str, Any]:
    """What `comparison.json` says of `pairs` of the runs that `names` names, on the images of `part`.

    Differences are of the first less the second, as shares of 1. The intervals by class hold together, corrected for
    as many looks as there are classes.
    """
    differences = [pair.difference() for pair in pairs]
    per_class = []
    for label, name in enumerate(class_names):
        own = [pair.difference(label) for pair in pairs if (pair.labels == label).any()]
        own_bounds = interval(own, num_looks=len(class_names))
        per_class.append(
            {
                "name": name,
                "difference": float(np.mean(own)) if own else None,
                "interval": own_bounds,
                "verdict": judged(own_bounds),
            }
        )
    content = {
        "differences": differences,
        "difference": float(np.mean(differences)),
        "interval": interval(differences),
        "mcnemar_p": [pair.mcnemar() for pair in pairs],
        "per_class": per_class,
        "seeds_needed": seeds_needed(differences),
    }
    return content | {"verdict": verdict(content, names, part)}


def verdict(content: dict[str, Any], names: tuple[str, str], part: str) -> str:
    """The finding of `compared` as a sentence or two."""
    first, second = names
    count, mean, bounds = len(content["differences"]), 100 * content["difference"], content["interval"]
    if bounds is None:
        p = content["mcnemar_p"][0]
        alone = f"one pair, McNemar's p {f'{p:.2g}' if p else 'below 1e-300'}"
        pairs = alone if count == 1 else f"{count} pairs that all differ alike"
        return (
            f"Not judged: {first} is {mean:+.2f} points of {part} accuracy from {second} in {pairs}; an interval over "
            f"seeds takes at least 2 pairs that differ, a claim {SEEDS_FOR_A_CLAIM}."
        )
    low, high = (100 * bound for bound in bounds)
    numbers = f"{mean:+.2f} points of {part} accuracy, 95 % interval {low:+.2f} to {high:+.2f}, {count} pairs"
    word = judged(bounds)
    if word == "no difference shown":
        sentence = f"No difference shown between {first} and {second}: {numbers}"
    else:
        sentence = f"{first} is {word} than {second}: {numbers}"
    few = f"; fewer than the {SEEDS_FOR_A_CLAIM} that a claim takes" if count < SEEDS_FOR_A_CLAIM else ""
    needed = content["seeds_needed"]
    many = f"{needed:,} pairs or more" if needed == MOST_SEEDS else f"{needed} pairs"
    return f"{sentence}{few}. To show one point would take {many}."

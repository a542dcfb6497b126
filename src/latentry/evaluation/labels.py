"""Which labels are likely wrong, from predictions of networks that hadn't seen them."""

import numpy as np


def confident_errors(labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, int, float]]:
    """Positions whose label (N,) is likely wrong, the class they seem to be, and the margin; worst first.

    An image is suspected when, of the classes whose probability (N, K) is at least what it is on average for images of
    that class, the likeliest is not its own. The margin is that class's probability less its label's.

    Source: Northcutt, Jiang and Chuang 2021, arXiv 1911.00068, equations 1 and 2 (ranked by normalised margin).
    """
    classes = np.unique(labels)
    usual = np.full(probabilities.shape[1], np.inf)
    usual[classes] = [probabilities[labels == label, label].mean() for label in classes]
    confident = np.where(probabilities >= usual, probabilities, -1.0)
    seeming = confident.argmax(axis=1)
    rows = np.arange(len(labels))
    margins = probabilities[rows, seeming] - probabilities[rows, labels]
    suspected = np.flatnonzero((confident.max(axis=1) >= 0) & (margins > 0))
    order = suspected[np.argsort(-margins[suspected], kind="stable")]
    return [(int(row), int(seeming[row]), float(margins[row])) for row in order]

"""How good predictions and reconstructions are. Pure functions of arrays."""

from typing import Any

import numpy as np
from sklearn import metrics
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

NUM_CALIBRATION_BINS = 15
SSIM_WINDOW = 11
CLASSIFICATION_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "log_loss",
    "ece",
    "per_class",
    "confusion_matrix",
)
"""Keys of `classification_metrics`."""


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """The classification part of `results.json`, of labels (N,) and probabilities (N, K).

    `log_loss` is in nats; `ece` is the expected calibration error of 15 equal bins (Guo et al. 2017). A class without
    a prediction has precision 0.
    """
    classes = np.arange(len(class_names))
    predictions = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=0.0
    )
    confusion = metrics.confusion_matrix(labels, predictions, labels=classes)
    return {
        "accuracy": float((predictions == labels).mean()),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_f1": float(f1[support > 0].mean()),
        "log_loss": float(metrics.log_loss(labels, probabilities, labels=classes)),
        "ece": calibration_error(labels, probabilities),
        "per_class": [
            {
                "name": name,
                "correct": int(confusion[label, label]),
                "total": int(support[label]),
                "precision": float(precision[label]),
                "recall": float(recall[label]),
                "f1": float(f1[label]),
            }
            for label, name in enumerate(class_names)
        ],
        "confusion_matrix": confusion.tolist(),
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error of 15 equal bins, of labels (N,) and probabilities (N, K).

    The bins are those of `reliability`; torchmetrics gives a confidence of exactly 1 a bin of its own.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    confidence, right, bins = _binned(labels, probabilities)
    return float(np.abs(np.bincount(bins, confidence - right)).sum() / len(labels))


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[float, float]]:
    """Mean confidence and accuracy of each of those bins that has images, of labels (N,) and probabilities (N, K)."""
    confidence, right, bins = _binned(labels, probabilities)
    filled = [bins == number for number in np.unique(bins)]
    return [(float(confidence[chosen].mean()), float(right[chosen].mean())) for chosen in filled]


def _binned(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, whether it was right, and the bin of each image."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return confidence, right, np.minimum((confidence * NUM_CALIBRATION_BINS).astype(int), NUM_CALIBRATION_BINS - 1)


def ssim(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Structural similarity of each image, shape (N,); both float (N, C, H, W) in [0, 1].

    The mean over the places where the window, Gaussian of 11 pixels and deviation 1.5, lies inside the image.
    Source: Wang et al. 2004, section III C.
    """
    result = structural_similarity_index_measure(
        reconstructions, images, data_range=1.0, reduction="none", return_full_image=True
    )
    assert isinstance(result, tuple)
    _, places = result
    inside = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
    return places[..., inside, inside].mean(dim=(1, 2, 3))

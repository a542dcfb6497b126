"""Metrics against scikit-image and against arithmetic."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.classification import multiclass_calibration_error

from latentry.evaluation.calibration import fit_temperature
from latentry.evaluation.metrics import calibration_error, classification_metrics, reliability, ssim
from latentry.inference import probabilities
from latentry.training.losses import psnr


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.rand(6, 3, 36, 36, generator=generator), 5, stride=1)
    noise = torch.rand(6, 1, 1, 1, generator=generator) * torch.randn(images.shape, generator=generator) * 0.2
    return (images + noise).clamp(0, 1), images


def test_psnr_agrees_with_scikit_image(pairs):
    reconstructions, images = pairs
    expected = [
        peak_signal_noise_ratio(image.numpy(), other.numpy(), data_range=1) for other, image in zip(*pairs, strict=True)
    ]
    assert psnr(reconstructions, images).tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) - min(expected) > 1
    assert psnr(images + 1, torch.ones_like(images)).tolist() == pytest.approx([100] * 6)  # clipped, and finite


def test_ssim_agrees_with_scikit_image(pairs):
    reconstructions, images = pairs
    expected = [
        structural_similarity(
            image.numpy(),
            other.numpy(),
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for other, image in zip(*pairs, strict=True)
    ]
    assert ssim(reconstructions, images).tolist() == pytest.approx(expected, abs=2e-4)
    assert max(expected) - min(expected) > 0.05


def test_classification_metrics_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    chances = np.array(
        [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.3, 0.4, 0.3], [0.1, 0.9, 0.0], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]]
    )
    scores = classification_metrics(labels, chances, ("a", "b", "c"))
    assert scores["accuracy"] == 3 / 6
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert scores["confusion_matrix"] == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)
    assert scores["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.9, 0.3, 0.3]).mean())
    assert [(row["name"], row["correct"], row["total"]) for row in scores["per_class"]] == [
        ("a", 2, 3),
        ("b", 1, 2),
        ("c", 0, 1),
    ]
    # Bins of 15: each prediction is alone in its bin but for the two at 0.5, one wrong and one wrong.
    confidences, right = np.array([0.8, 0.6, 0.4, 0.9, 0.5, 0.5]), np.array([1, 1, 0, 1, 0, 0])
    alone = np.abs(confidences - right)[:4].sum() / 6
    assert scores["ece"] == pytest.approx(alone + 2 / 6 * 0.5, abs=1e-6)


def test_the_fitted_temperature_is_the_one_that_made_the_labels():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 5)) * 3
    true = probabilities(logits, 2.0)
    labels = np.array([generator.choice(5, p=row) for row in true])
    assert fit_temperature(logits, labels) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("count", [20, 170, 3000])
def test_images_that_are_all_recognised_make_no_answer_certain(count):
    labels = np.random.default_rng(0).integers(0, 4, count)
    logits = 9.0 * np.eye(4)[labels]
    answers = probabilities(logits, fit_temperature(logits, labels))
    assert answers.max() == pytest.approx((count + 1) / (count + 2), abs=1e-4)
    assert probabilities(logits, 2.0).sum(axis=1) == pytest.approx(1)


def test_calibration_error_agrees_with_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    chances = torch.softmax(3 * torch.randn(500, 7, generator=generator), dim=1)
    labels = torch.randint(7, (500,), generator=generator)
    expected = multiclass_calibration_error(chances, labels, num_classes=7, n_bins=15, norm="l1").item()
    assert calibration_error(labels.numpy(), chances.numpy()) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.3
    certain = np.array([[1.0, 0.0], [0.95, 0.05]], dtype=np.float32)  # of one bin, which torchmetrics makes two
    assert calibration_error(np.array([0, 1]), certain) == pytest.approx((1 + 0.95 - 1) / 2)


def test_reliability_has_the_bins_of_the_calibration_error():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1.0, 0.5, 0.3], 500)
    labels = generator.integers(0, 3, 500)
    edges = np.minimum((probabilities.max(axis=1) * 15).astype(int), 14)
    counts = np.unique(edges, return_counts=True)[1]
    gaps = [abs(confidence - right) for confidence, right in reliability(labels, probabilities)]
    assert np.average(gaps, weights=counts) == pytest.approx(calibration_error(labels, probabilities), abs=1e-6)

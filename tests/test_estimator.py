"""scikit-learn's own checks, and what its users do."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from latentry import LatentClassifier
from latentry.errors import RecipeError

QUICK = {
    "pretrain.max_epochs": 1,
    "pretrain.min_steps_per_epoch": 3,
    "pretrain.batch_size": 64,
    "classify.max_epochs": 2,
    "classify.min_steps_per_epoch": 12,
    "classify.batch_size": 64,
}
EXPECTED_FAILED_CHECKS = {
    "check_methods_subset_invariance": "convolutions of other numbers of images sum in another order: 1e-6 apart",
}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """200 pictures of handwritten 0 to 3, float of 0 to 16, (N, 8, 8)."""
    content = load_digits(n_class=4)
    return content.images[:200], content.target[:200]


@pytest.fixture(scope="module")
def fitted(digits) -> LatentClassifier:
    return LatentClassifier(settings=QUICK, random_state=0).fit(*digits)


@pytest.mark.slow
def test_scikit_learns_checks():
    fewest = {
        "model.autoencoder": "identity",
        "pretrain.max_epochs": 0,
        "classify.reconstruction_weight": 0.0,
        "classify.max_epochs": 1,
        "classify.min_steps_per_epoch": 48,
        "classify.batch_size": 32,
    }
    estimator = LatentClassifier(settings=QUICK | fewest, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks = check_estimator(estimator, expected_failed_checks=EXPECTED_FAILED_CHECKS, on_skip=None)
    assert sum(check["status"] == "passed" for check in checks) >= 40


def test_it_learns_and_answers_in_every_way(fitted, digits):
    images, labels = digits
    assert fitted.score(images, labels) > 0.9
    chances = fitted.predict_proba(images)
    assert chances.shape == (200, 4)
    assert chances.sum(axis=1) == pytest.approx(1)
    latents = fitted.transform(images)
    assert latents.shape == (200, np.prod(fitted.results_["network"]["latent"]))
    assert LogisticRegression(max_iter=500).fit(latents[:100], labels[:100]).score(latents[100:], labels[100:]) > 0.8


def test_the_same_images_in_any_form_give_the_same_answer(fitted, digits):
    images = digits[0][:20] / 16
    expected = LatentClassifier._images
    estimator = LatentClassifier(image_shape=(8, 8))
    estimator._learn_range(images)
    grey = expected(estimator, images)
    forms = [images[..., None], images[:, None], np.repeat(images[..., None], 3, 3), np.repeat(images[:, None], 3, 1)]
    for form in [*forms, images.reshape(20, -1)]:
        assert np.array_equal(expected(estimator, form), grey)
    rows = LatentClassifier()
    rows._learn_range((images.reshape(20, -1) * 3).round().astype(np.uint8))
    assert rows._greatest.max() == 3
    eight = (images * 255).round().astype(np.uint8)
    estimator._learn_range(eight)
    assert np.array_equal(expected(estimator, eight), grey)
    with pytest.raises(
        ValueError, match="X is float64, and the images that were fitted are uint8: give all in one form"
    ):
        expected(estimator, images)


def test_classes_may_be_anything_and_unlabelled_images_help_themselves(digits):
    images, labels = digits
    names = np.array(["zero", "one", "two", "three"])[labels]
    estimator = LatentClassifier(settings=QUICK, random_state=1).fit(images, names, unlabelled=images[:37])
    assert estimator.classes_.tolist() == ["one", "three", "two", "zero"]
    assert estimator.results_["unlabelled_images"] == 37
    assert (estimator.predict(images) == names).mean() > 0.9


@pytest.mark.slow
def test_weights_of_classes_shift_predictions(digits):
    images, labels = digits
    shares = []
    for weight in (None, {3: 1e-6}):
        settings = QUICK | {"classify.label_smoothing": 0.0}
        estimator = LatentClassifier(settings=settings, class_weight=weight, random_state=0).fit(images, labels)
        shares.append((estimator.predict(images) == 3).mean())
    assert shares[1] < 0.05 < shares[0]
    with pytest.raises(ValueError, match=r"class_weight names 7; the classes are \[0, 1, 2, 3\]"):
        LatentClassifier(class_weight={7: 1.0}).fit(images, labels)


@pytest.mark.slow
def test_of_balanced_classes_probabilities_are_calibrated_as_they_are_trained(digits):
    images, labels = digits
    rare = np.concatenate([np.flatnonzero(labels != 3), np.flatnonzero(labels == 3)[:12]])
    settings = QUICK | {"batches.classify.balanced": True}
    estimator = LatentClassifier(settings=settings, random_state=0).fit(images[rare], labels[rare])
    config = estimator.predictor_.config
    assert config.class_shares == config.trained_shares
    assert config.temperature == estimator.results_["temperature"]


def test_it_is_pickled_and_cloned(fitted, digits, tmp_path):
    images, _ = digits
    joblib.dump(fitted, tmp_path / "model.joblib")
    for copy in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(copy.predict_proba(images), fitted.predict_proba(images))
    assert clone(fitted).get_params() == fitted.get_params()


def test_what_cannot_be_used_is_refused(digits):
    images, labels = digits
    with pytest.raises(ValueError, match="one class"):
        LatentClassifier().fit(images, np.zeros(200))
    with pytest.raises(ValueError, match=r"X has 64 features, and image_shape = \(8, 9\) holds 72"):
        LatentClassifier(image_shape=(8, 9)).fit(images.reshape(200, -1), labels)
    with pytest.raises(ValueError, match="with 1 or 3 channels"):
        LatentClassifier().fit(images.reshape(200, 2, 2, 16), labels)
    with pytest.raises(RecipeError, match="no recipe called"):
        LatentClassifier("quik").fit(images, labels)
    with pytest.raises(ValueError, match="X is uint8, and the images that were fitted are numbers that are not"):
        LatentClassifier().fit(images, labels, unlabelled=images.astype(np.uint8))


@pytest.mark.slow
def test_it_works_where_scikit_learn_puts_estimators(digits):
    images, labels = digits
    rows = images.reshape(200, -1)
    estimator = LatentClassifier(settings=QUICK, image_shape=(8, 8), random_state=0)
    pipeline = make_pipeline(estimator, LogisticRegression(max_iter=500))
    assert pipeline.fit(rows, labels).score(rows, labels) > 0.9
    search = GridSearchCV(estimator, {"class_weight": [None, "balanced"]}, cv=2).fit(rows, labels)
    assert search.best_score_ > 0.7
    calibrated = CalibratedClassifierCV(estimator, cv=2).fit(rows, labels)
    assert (calibrated.predict_proba(rows).argmax(axis=1) == labels).mean() > 0.9
    again = [clone(estimator).fit(rows, labels).predict_proba(rows) for _ in range(2)]
    assert np.array_equal(*again)

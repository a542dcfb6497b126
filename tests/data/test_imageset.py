"""Counts, statistics and the hash of an ImageSet."""

import dataclasses

import numpy as np
import pytest

from latentry.data import cifar10
from latentry.errors import DataError


def test_statistics_are_those_of_the_pixels(toy_images, monkeypatch):
    indices = np.arange(5, 70)
    pixels = toy_images.images[indices] / 255
    mean, deviation = toy_images.channel_statistics(indices)
    assert mean == pytest.approx(pixels.mean(axis=(0, 2, 3)))
    assert deviation == pytest.approx(pixels.std(axis=(0, 2, 3)))
    black = dataclasses.replace(toy_images, images=np.zeros_like(toy_images.images))
    assert black.channel_statistics(indices)[1].tolist() == [0.001] * 3


@pytest.mark.slow
def test_cifar10_has_the_known_statistics():
    images = cifar10.load_train()
    mean, deviation = images.channel_statistics(np.arange(50_000))
    assert mean == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=1e-8)
    assert deviation == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=1e-8)


@pytest.mark.parametrize("label", [-2, 3])
def test_a_label_out_of_range_is_named(toy_images, label):
    labels = toy_images.labels.copy()
    labels[5] = label
    with pytest.raises(DataError, match=f"label {label} is out of range: give 0 to 2, or -1 for none"):
        dataclasses.replace(toy_images, labels=labels)


def test_the_hash_is_of_pixels_labels_and_names(toy_images):
    labels = toy_images.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    names = ("a", "b", "c")
    changed = [dataclasses.replace(toy_images, labels=labels), dataclasses.replace(toy_images, class_names=names)]
    hashes = {toy_images.sha256, *(images.sha256 for images in changed)}
    assert len(hashes) == 3
    assert dataclasses.replace(toy_images, images=toy_images.images.copy()).sha256 == toy_images.sha256

"""Near-duplicates: found when moved, re-lit or encoded again; not found where only the background agrees."""

import io

import numpy as np
import pytest
from PIL import Image

from latentry.evaluation.similar import near_duplicates, nearest, similarity


def photograph(seed: int, size: int = 40) -> np.ndarray:
    """Something with details at every scale, uint8 (3, size, size)."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((size, size), 3), float
        )
        for side in (4, 10, 20)
    ]
    return np.mean(layers, axis=0).round().astype(np.uint8).transpose(2, 0, 1)


def encoded_again(image: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "jpeg", quality=85)
    return np.asarray(Image.open(stream)).transpose(2, 0, 1)


def test_a_copy_is_alike_however_it_was_handled():
    whole = photograph(0)
    image = whole[:, 4:36, 4:36]
    copies = [
        image,
        whole[:, 3:35, 6:38],
        (image * 0.6 + 50).astype(np.uint8),
        encoded_again(image),
    ]
    pairs = np.array([[0, place] for place in range(1, 1 + len(copies))])
    alike = similarity(np.stack([image, *copies]), pairs)
    assert alike[0] == pytest.approx(1, abs=1e-5)
    assert (alike > 0.8).all()


def test_other_pictures_and_flat_ones_are_not():
    images = np.stack([photograph(seed, 32) for seed in range(20)])
    pairs = np.array([[first, second] for first in range(20) for second in range(first)])
    assert similarity(images, pairs).max() < 0.5
    background = np.full((3, 32, 32), 255, dtype=np.uint8)
    with_one = background.copy()
    with_one[:, 10:14, 10:14] = 0
    assert similarity(np.stack([background, background, with_one]), np.array([[0, 1], [0, 2]])).max() < 0.1
    assert similarity(images, np.empty((0, 2), dtype=np.int64)).shape == (0,)


def test_larger_images_are_compared_at_one_size():
    large = np.stack([photograph(1, 96), photograph(2, 96)])
    again = np.stack([large[0], encoded_again(large[0]), large[1]])
    assert similarity(again, np.array([[0, 1], [0, 2]])) == pytest.approx([0.97, 0.0], abs=0.3)


def test_nearest_is_what_brute_force_finds():
    latents = np.random.default_rng(0).normal(size=(300, 4, 2, 2)).astype(np.float16)
    rows = latents.reshape(300, -1).astype(float)
    distances = np.square(rows[:, None] - rows[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    found = nearest(latents, 3)
    assert (np.sort(found, axis=1) == np.sort(distances.argsort(axis=1)[:, :3], axis=1)).mean() > 0.99
    assert nearest(latents[:3], 4).shape == (3, 2)


def test_copies_are_found_however_smooth_or_many_they_are():
    slope = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8), (3, 32, 32))
    images = np.stack([slope, *(photograph(seed, 32) for seed in range(8)), slope, slope])
    latents = np.random.default_rng(0).normal(size=(len(images), 5))
    found = near_duplicates(images, latents, 0.6, count=1)
    assert found == [(0, 9, 1.0), (0, 10, 1.0)]


def test_planted_pairs_come_first():
    images = np.stack([photograph(seed, 32) for seed in range(60)])
    images[50] = images[7]
    images[51] = encoded_again(images[8])
    latents = images.reshape(60, -1)[:, ::16] / 255
    found = near_duplicates(images, latents, 0.6)
    assert [pair[:2] for pair in found] == [(7, 50), (8, 51)]
    assert found[0][2] == pytest.approx(1, abs=1e-5)
    more = near_duplicates(images, latents, 0.6, below=3)
    assert more[:2] == found
    assert [pair[2] < 0.6 for pair in more] == [False, False, True, True, True]
    assert more[2][2] >= more[3][2] >= more[4][2]

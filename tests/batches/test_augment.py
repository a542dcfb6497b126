"""Transforms against Keras' own numbers and against plain arithmetic."""

from pathlib import Path

import numpy as np
import torch

from latentry.batches.augment import (
    AffineParameters,
    affine,
    cutout,
    draw_affine,
    flips,
    relit,
    transform,
    translate,
)
from latentry.settings import Augment

KERAS = np.load(Path(__file__).parents[1] / "reference" / "keras_affine.npz")


def keras_parameters() -> AffineParameters:
    names = ("theta", "tx", "ty", "shear", "zx", "zy")
    values = {name: torch.tensor(KERAS[name], dtype=torch.float32) for name in names}
    return AffineParameters(**values, flip=torch.tensor(KERAS["flip_horizontal"] > 0))


def test_affine_agrees_with_keras():
    outputs = affine(torch.tensor(KERAS["images"]), keras_parameters())
    assert torch.allclose(outputs, torch.tensor(KERAS["outputs"], dtype=torch.float32), atol=1e-5)
    # The parameters move something: the agreement is not that of untouched images.
    assert (torch.tensor(KERAS["images"]) - outputs).abs().mean() > 0.1


def test_drawn_parameters_stay_in_keras_ranges_and_fill_them():
    augment = Augment(rotation=40, width_shift=0.2, height_shift=0.1, shear=0.2, zoom=0.2)
    drawn = draw_affine(augment, torch.Size([5000, 3, 32, 32]), torch.zeros(5000), torch.Generator().manual_seed(0))
    for values, low, high in (
        (drawn.theta, -40, 40),
        (drawn.tx, -3.2, 3.2),
        (drawn.ty, -6.4, 6.4),
        (drawn.shear, -0.2, 0.2),
        (drawn.zx, 0.8, 1.2),
        (drawn.zy, 0.8, 1.2),
    ):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
    assert not torch.equal(drawn.zx, drawn.zy)


def test_translate_is_a_crop_of_the_reflected_image():
    images = torch.rand(4, 3, 9, 7)
    offsets = torch.tensor([[0, 0], [2, 2], [4, 1], [3, 4]])
    flip = torch.tensor([False, False, False, True])
    moved = translate(images, offsets, flip, padding=2)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
    for index, (row, column) in enumerate(offsets.tolist()):
        expected = padded[index, :, row : row + 9, column : column + 7]
        assert torch.equal(moved[index], expected.flip(2) if flip[index] else expected)
    assert torch.equal(moved[1], images[1])


def test_light_changes_each_image_as_a_whole():
    images = torch.rand(200, 3, 8, 8)
    changed = relit(images, torch.full((200,), 0.25), torch.full((200,), 0.5))
    means, spread = images.mean(dim=(1, 2, 3)), images.std(dim=(1, 2, 3))
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), means + 0.25, atol=1e-6)
    assert torch.allclose(changed.std(dim=(1, 2, 3)), 0.5 * spread, atol=1e-6)
    augment = Augment(brightness=0.1, contrast=0.2)
    drawn, target = transform(images, augment, torch.arange(200), 0, torch.Generator().manual_seed(0))
    assert target is drawn
    shifts, factors = drawn.mean(dim=(1, 2, 3)) - means, drawn.std(dim=(1, 2, 3)) / spread
    assert 0.09 < shifts.abs().max() < 0.1001
    assert 0.8 <= factors.min() < 0.82 < 1.18 < factors.max() <= 1.2001
    assert abs(torch.corrcoef(torch.stack([shifts, factors]))[0, 1]) < 0.2


def test_cutout_blanks_one_square_of_the_input_and_spares_the_target():
    images = torch.rand(50, 3, 16, 16)
    blanked = cutout(images, torch.full((50, 2), 8), size=5)
    changed = (blanked != images).any(dim=1)
    assert changed[:, 6:11, 6:11].all()
    assert changed.sum() == 50 * 25
    inputs, target = transform(images, Augment(cutout=6), torch.arange(50), 0, torch.Generator().manual_seed(0))
    assert torch.equal(target, images)
    assert 1 <= (inputs != images).any(dim=1).sum(dim=(1, 2)).max() <= 36


def test_alternating_flip_gives_every_image_each_orientation_in_turn():
    indices = torch.arange(1000)
    generator = torch.Generator().manual_seed(0)
    first, second, third = (flips("alternating", indices, epoch, generator) for epoch in range(3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 400 < int(first.sum()) < 600
    assert not flips("none", indices, 1, generator).any()
    assert 400 < int(flips("random", indices, 0, generator).sum()) < 600


def test_off_is_the_identity():
    images = torch.rand(3, 3, 8, 8)
    inputs, target = transform(images, Augment(), torch.arange(3), 5, torch.Generator())
    assert torch.equal(inputs, images)
    assert torch.equal(target, images)

"""Batches: the same for the same seed, sharded without changing them, channels-last."""

import numpy as np
import pytest
import torch

from latentry.batches.loader import Loader
from latentry.settings import Augment

AUGMENT = Augment(flip="random", translate=2, rotation=10, cutout=5)


def loader(images, indices=None, **changes):
    settings = {"batch_size": 16, "augment": AUGMENT, "stage": "classify", "seed": 3, "device": torch.device("cpu")}
    indices = np.arange(len(images)) if indices is None else indices
    return Loader(images, indices, **(settings | changes))


def epoch(loader, number):
    loader.set_epoch(number)
    return list(loader)


def test_an_epoch_depends_on_seed_stage_and_epoch_alone(toy_images):
    first = epoch(loader(toy_images), 4)
    walked = loader(toy_images)
    for number in range(4):
        epoch(walked, number)
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, epoch(walked, 4), strict=True))
    for other in (loader(toy_images, seed=4), loader(toy_images, stage="pretrain")):
        assert not torch.equal(first[0].images, epoch(other, 4)[0].images)
    assert not torch.equal(first[0].images, epoch(walked, 5)[0].images)


def test_batches_are_channels_last_floats_of_one_size(toy_images):
    batches = epoch(loader(toy_images), 0)
    assert len(batches) == len(loader(toy_images)) == 90 // 16
    for batch in batches:
        assert batch.images.shape == (16, 3, 32, 32)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.images.dtype == torch.float32
        assert 0 <= batch.images.min() <= batch.images.max() <= 1


def test_an_epoch_of_few_images_goes_round_them_again(toy_images):
    indices = np.arange(20, 60)
    again = loader(toy_images, indices, min_steps=6, augment=Augment())
    batches = epoch(again, 0)
    assert len(again) == len(batches) == 120 // 16  # three rounds are the fewest that make six steps
    visits = torch.cat([batch.images for batch in batches]).mul(255).round().byte().numpy()
    counts = [int((visits == toy_images.images[index]).all(axis=(1, 2, 3)).sum()) for index in indices]
    assert set(counts) <= {2, 3}
    assert sum(counts) == 7 * 16
    assert len(loader(toy_images, indices, min_steps=6, augment=Augment(balanced=True))) >= 6
    assert len(loader(toy_images, min_steps=5)) == len(loader(toy_images))


def test_an_image_that_comes_often_is_seen_from_both_sides_in_one_epoch(toy_images):
    image = torch.from_numpy(toy_images.images[20]).float() / 255
    alternating = loader(toy_images, np.full(64, 20), augment=Augment(flip="alternating"))
    seen = torch.cat([batch.images for batch in epoch(alternating, 0)])
    mirrored = [torch.equal(view, image.flip(2)) for view in seen]
    assert all(
        torch.equal(view, image.flip(2) if flipped else image) for view, flipped in zip(seen, mirrored, strict=True)
    )
    assert 20 < sum(mirrored) < 44
    after = torch.cat([batch.images for batch in epoch(alternating, 1)])
    assert sum(torch.equal(view, image.flip(2)) for view in after) == 64 - sum(mirrored)


def test_images_that_an_epoch_goes_round_are_seen_from_both_sides_in_it(toy_images):
    again = loader(toy_images, np.arange(20, 24), min_steps=16, augment=Augment(flip="alternating"))
    views = torch.cat([batch.images for batch in epoch(again, 0)])
    for image in torch.from_numpy(toy_images.images[20:24]).float() / 255:
        sides = [sum(torch.equal(view, side) for view in views) for side in (image, image.flip(2))]
        assert sum(sides) == 16
        assert min(sides) >= 3


def test_fixed_batches_come_in_order_and_whole(toy_images):
    indices = np.arange(10, 50)
    fixed = epoch(loader(toy_images, indices, training=False, augment=Augment()), 7)
    assert [len(batch.labels) for batch in fixed] == [16, 16, 8]
    assert np.array_equal(torch.cat([batch.labels for batch in fixed]), toy_images.labels[indices])
    assert torch.equal(fixed[0].images[0], torch.from_numpy(toy_images.images[10]) / 255)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_shards_of_a_batch_make_up_the_batch(toy_images, num_processes):
    whole = epoch(loader(toy_images), 1)
    shards = [epoch(loader(toy_images, rank=rank, num_processes=num_processes), 1) for rank in range(num_processes)]
    for index, batch in enumerate(whole):
        merged = torch.empty_like(batch.images)
        for rank, shard in enumerate(shards):
            merged[rank::num_processes] = shard[index].images
        assert torch.equal(merged, batch.images)


def test_balanced_batches_are_balanced(toy_images):
    balanced = loader(toy_images, augment=Augment(balanced=True), batch_size=40)
    counts = torch.bincount(torch.cat([batch.labels for batch in epoch(balanced, 0)]))
    assert counts.tolist() == [40, 40, 40]


def test_oversampling_is_drawn_once_a_run(toy_images):
    def visited(number, **changes):
        balanced = loader(toy_images, augment=Augment(balanced=True), batch_size=30, **changes)
        return sorted(image.sum().item() for batch in epoch(balanced, number) for image in batch.images)

    assert len(visited(0)) == 120
    assert visited(0) == visited(1)
    assert visited(0) != visited(0, seed=4)


def test_transformed_validation_is_drawn_anew_each_epoch(toy_images):
    fixed = loader(toy_images, training=False, augment=Augment(rotation=40, balanced=True))
    first, second, again = epoch(fixed, 0), epoch(fixed, 1), epoch(fixed, 0)
    assert torch.equal(first[0].labels, second[0].labels)
    assert not torch.equal(first[0].images, second[0].images)
    assert torch.equal(first[0].images, again[0].images)
    assert sum(len(batch.labels) for batch in first) == 120


def test_the_original_target_is_the_image_before_its_transforms(toy_images):
    batch = epoch(loader(toy_images, original_target=True), 0)[0]
    originals = {image.tobytes() for image in toy_images.images}
    assert all((target * 255).round().byte().numpy().tobytes() in originals for target in batch.target)
    assert not torch.equal(batch.images, batch.target)

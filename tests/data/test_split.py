"""Splits: disjoint, capped, stratified, the same for the same seed."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentry.data.imageset import ImageSet
from latentry.data.split import Split, limited, make_split
from latentry.errors import DataError, RunError
from latentry.settings import Data

NAMES = ("bird", "cat", "deer", "dog")


def labelled(counts: list[int], seed: int = 0) -> ImageSet:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    return ImageSet(np.zeros((len(labels), 3, 1, 1), dtype=np.uint8), labels, NAMES[: len(counts)])


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(20, 80), min_size=2, max_size=4),
    cap=st.integers(10, 20),
    draw=st.sampled_from(["first", "random"]),
    fold=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_properties(counts, cap, draw, fold, seed):
    images = labelled(counts, seed)
    data = Data(limit={"bird": cap}, draw=draw, fold=fold, split_seed=seed)
    split = make_split(images, data)
    together = np.concatenate([split.train, split.validation])
    assert len(np.unique(together)) == len(together)  # disjoint
    expected = dict(zip(NAMES, counts, strict=False)) | {"bird": cap}
    assert images.counts(together) == expected  # capped, nothing lost
    assert len(split.validation) == math.ceil(0.15 * len(together))
    for name, count in images.counts(split.validation).items():
        assert abs(count - len(split.validation) * expected[name] / len(together)) < 1  # stratified
    again = make_split(images, data)
    assert again.sha256 == split.sha256
    assert make_split(images, data.model_copy(update={"fold": (fold + 1) % 5})).sha256 != split.sha256
    every = make_split(images, data.model_copy(update={"standing": "all-train"}))
    assert np.array_equal(every.train, np.sort(together))
    assert len(every.validation) == 0


def test_what_its_owner_held_out_validates():
    images = labelled([30, 30])
    held_out = np.random.default_rng(1).random(60) < 0.3
    images = dataclasses.replace(images, held_out=held_out)
    split = make_split(images, Data(limit={"bird": 10}))
    assert np.array_equal(split.validation, np.flatnonzero(held_out))
    assert not held_out[split.train].any()
    assert images.counts(split.train)["bird"] == 10
    every = make_split(images, Data(standing="all-train"))
    assert np.array_equal(every.train, np.arange(60))
    alone = dataclasses.replace(images, held_out=images.labels == 0)
    with pytest.raises(DataError, match="the training part has no image of class 'bird'"):
        make_split(alone, Data())


def test_groups_stay_on_one_side():
    groups = np.random.default_rng(2).integers(0, 40, 300)
    images = dataclasses.replace(labelled([200, 100]), groups=groups)
    sides = [make_split(images, Data(fold=fold)) for fold in range(5)]
    for split in sides:
        assert not set(groups[split.train]) & set(groups[split.validation])
        assert 0.08 < len(split.validation) / 300 < 0.25
        assert len(split.train) + len(split.validation) == 300
    assert len({split.sha256 for split in sides}) == 5
    unknown = np.random.default_rng(3).random(300) < 0.3
    some = dataclasses.replace(images, labels=np.where(unknown, -1, images.labels))
    split = make_split(some, Data())
    assert not set(groups[split.unlabelled]) & set(groups[split.validation])
    assert set(split.unlabelled) == set(np.flatnonzero(unknown & ~np.isin(groups, groups[split.validation])))
    with pytest.raises(DataError, match="makes 2 parts of 40 groups, of which fold 3 is asked for"):
        make_split(images, Data(validation=0.5, fold=3))
    with pytest.raises(DataError, match=r"data\.validation = 0\.7, and of grouped images at most 0\.5"):
        make_split(images, Data(validation=0.7))
    with pytest.raises(DataError, match="makes 7 parts of 3 groups"):
        make_split(dataclasses.replace(images, groups=groups % 3), Data())


def test_images_without_labels_are_for_pretraining_alone():
    labels = np.concatenate([labelled([30, 30]).labels, np.full(25, -1)])
    images = ImageSet(np.zeros((85, 3, 1, 1), dtype=np.uint8), labels, NAMES[:2])
    split = make_split(images, Data())
    assert np.array_equal(split.unlabelled, np.arange(60, 85))
    assert images.counts() == {"bird": 30, "cat": 30}
    assert max(split.train.max(), split.validation.max()) < 60
    assert Split.from_json(split.to_json()).sha256 == split.sha256
    assert split.sha256 != Split(split.train, split.validation).sha256


def test_first_keeps_file_order_and_random_does_not():
    images = labelled([50, 50])
    birds = np.flatnonzero(images.labels == 0)
    kept = limited(images, {"bird": 20}, "first", 0)
    assert np.array_equal(kept[images.labels[kept] == 0], birds[:20])
    drawn = limited(images, {"bird": 20}, "random", 0)
    assert not np.array_equal(drawn, kept)
    assert not np.array_equal(drawn, limited(images, {"bird": 20}, "random", 1))


def test_the_reference_problem_has_the_published_sizes():
    images = ImageSet(
        np.zeros((50_000, 3, 1, 1), dtype=np.uint8),
        np.tile(np.arange(10, dtype=np.int64), 5000),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    )
    split = make_split(images, Data(limit={"bird": 2500, "deer": 2500, "truck": 2500}))
    assert (len(split.train), len(split.validation)) == (36_125, 6_375)


def test_limits_that_cannot_be_met_are_named():
    images = labelled([30, 30])
    with pytest.raises(DataError, match=r"the limit bird=31 is more than the 30 images of bird"):
        limited(images, {"bird": 31}, "first", 0)
    with pytest.raises(DataError, match=r"'horse'; the classes are bird, cat"):
        limited(images, {"horse": 3}, "first", 0)
    with pytest.raises(DataError, match=r"class 'cat' has 1 training images"):
        make_split(images, Data(limit={"cat": 1}))


def test_a_split_survives_its_file_and_an_altered_one_is_refused():
    split = make_split(labelled([30, 40]), Data())
    content = split.to_json()
    assert Split.from_json(content).sha256 == split.sha256
    content["train"][0], content["train"][1] = content["train"][1], content["train"][0]
    with pytest.raises(RunError, match="damaged"):
        Split.from_json(content)
    with pytest.raises(RunError, match="damaged"):
        Split.from_json({"train": []})

"""Splits: disjoint, capped, stratified, the same for the same seed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentry.data.imageset import ImageSet
from latentry.data.split import Split, limited, make_split
from latentry.errors import DataError, RunError
from latentry.recipe import Data

NAMES = ("bird", "cat", "deer", "dog")


def labelled(counts: list[int], seed: int = 0) -> ImageSet:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    return ImageSet(np.zeros((len(labels), 3, 1, 1), dtype=np.uint8), labels, NAMES[: len(counts)])


@settings(max_examples=60, deadline=None)
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

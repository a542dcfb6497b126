"""Requests become batches: each gets its own answer, whoever has gone none, and a failure stays with its batch."""

import asyncio

import numpy as np
import pytest

from latentry.deploy.batching import LARGEST_BATCH, Batcher
from latentry.deploy.predictor import Answer


class Echo:
    """Answers with each picture's first pixel, and remembers how many it was asked about at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, bool]] = []

    def answer(self, images: np.ndarray, *, decode: bool) -> Answer:
        self.asked.append((len(images), decode))
        if (images == 255).any():
            raise ValueError("white")
        pixels = images[:, :1, 0, 0].astype(float)
        return Answer(pixels, pixels, images / 255 if decode else images[:0], pixels[:, 0] if decode else pixels[:0, 0])


def pictures(*levels: int) -> np.ndarray:
    return np.stack([np.full((3, 2, 2), level, dtype=np.uint8) for level in levels])


def test_each_gets_its_own_answer_in_few_batches():
    echo = Echo()
    batcher = Batcher(echo)

    async def ask() -> list[Answer]:
        return await asyncio.gather(
            *(batcher.ask(pictures(level, level + 1), decode=level == 80) for level in range(0, 200, 2))
        )

    answers = asyncio.run(ask())
    assert [answer.probabilities[:, 0].tolist() for answer in answers] == [[n, n + 1] for n in range(0, 200, 2)]
    assert sum(count for count, _ in echo.asked) == 200
    assert max(count for count, _ in echo.asked) == LARGEST_BATCH
    assert [decode for _, decode in echo.asked].count(True) == 1
    assert answers[40].errors.tolist() == [80, 81]


def test_a_request_larger_than_a_batch_is_one():
    echo = Echo()
    answer = asyncio.run(Batcher(echo).ask(pictures(*[7] * (LARGEST_BATCH + 1)), decode=False))
    assert len(answer.probabilities) == LARGEST_BATCH + 1
    assert echo.asked == [(LARGEST_BATCH + 1, False)]


def test_those_who_left_are_left_out():
    echo = Echo()
    batcher = Batcher(echo)

    async def ask() -> None:
        first = asyncio.create_task(batcher.ask(pictures(1, 2, 3), decode=False))
        await asyncio.sleep(0)
        gone = asyncio.create_task(batcher.ask(pictures(7, 8), decode=False))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await first).probabilities[:, 0].tolist() == [1, 2, 3]
        assert (await batcher.ask(pictures(9), decode=False)).probabilities[:, 0].tolist() == [9]

    asyncio.run(ask())
    assert 2 not in [count for count, _ in echo.asked]


def test_a_failure_reaches_those_of_its_batch_alone():
    batcher = Batcher(Echo())

    async def ask() -> None:
        with pytest.raises(ValueError, match="white"):
            await batcher.ask(pictures(255), decode=False)
        assert (await batcher.ask(pictures(3), decode=False)).probabilities[:, 0].tolist() == [3]

    asyncio.run(ask())

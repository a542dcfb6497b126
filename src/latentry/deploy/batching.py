"""Requests that wait are asked as one batch: whoever comes while one is being answered goes into the next."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import functools

import numpy as np

from latentry.deploy.predictor import Answer, Predictor

LARGEST_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Request:
    """Pictures of one client, uint8 (N, 3, S, S), and who waits for what is said of them."""

    pictures: np.ndarray
    decode: bool
    answer: asyncio.Future[Answer]


class Batcher:
    """A predictor shared by the coroutines of one event loop; a thread of its own asks it."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._queue: collections.deque[Request] = collections.deque()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "predictor")
        self._work: asyncio.Task[None] | None = None

    async def ask(self, pictures: np.ndarray, *, decode: bool) -> Answer:
        """What the predictor says of uint8 images (N, 3, S, S); whoever cancels it is left out of the next batch."""
        request = Request(pictures, decode, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await request.answer

    async def _answer_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            batch = self._next_batch()
            if not batch:
                continue
            try:
                pictures = np.concatenate([request.pictures for request in batch])
                decode = any(request.decode for request in batch)
                ask = functools.partial(self.predictor.answer, pictures, decode=decode)
                answer = await loop.run_in_executor(self._thread, ask)
            except Exception as error:  # noqa: BLE001 - each client is told, and the next batch has its turn
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
                continue
            start = 0
            for request in batch:
                stop = start + len(request.pictures)
                if not request.answer.done():
                    request.answer.set_result(answer.part(slice(start, stop)))
                start = stop

    def _next_batch(self) -> list[Request]:
        """The requests at the head of the queue that fit into a batch; a larger one is a batch of its own.

        Whoever has gone in the meantime is left out.
        """
        batch: list[Request] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].pictures) <= LARGEST_BATCH):
            request = self._queue.popleft()
            if not request.answer.cancelled():
                batch.append(request)
                size += len(request.pictures)
        return batch

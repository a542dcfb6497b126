"""What the routes of the web service share: images from requests, and whose turn it is."""

import asyncio
import collections
import contextlib
import functools
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException
from starlette.requests import Request

from latentry.data.pictures import (
    FORMATS,
    LARGEST_IMAGE_PIXELS,
    PictureError,
    TooManyPixelsError,
    UnknownFormatError,
    num_pixels,
    read_picture,
)
from latentry.deploy.batching import Batcher
from latentry.deploy.predictor import Answer, Predictor
from latentry.deploy.uploads import AGAIN, Limits, Uploads

NUM_WORKERS = 2
"""Threads that decode and encode images; a large one takes hundreds of megabytes meanwhile."""
READ_FORMATS = tuple(name for name in FORMATS if name != "TIFF")
"""The library behind TIFF writes what it finds in a file to the error stream."""

Given = TypeVar("Given")


class Service:
    """A predictor that many clients ask, each for no more than `limits` allow."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor = predictor
        self.limits = limits
        self.uploads = Uploads(limits)
        self.batcher = Batcher(predictor)
        self.workers = CapacityLimiter(NUM_WORKERS)
        self.waiting: collections.Counter[str] = collections.Counter()

    async def answered(self, request: Request, *, decode: bool) -> tuple[list[str], np.ndarray, Answer]:
        """Names, uint8 pictures (N, 3, S, S) and answer of the files that `request` sends.

        Raises:
            HTTPException: the request, a file or the number of waiting images is off.
        """
        async with contextlib.AsyncExitStack() as held:
            files = await held.enter_async_context(self.uploads.files_of(request))
            names = [name for name, _ in files]
            with self.turn(request.client.host if request.client else "", len(files)):
                pictures = await unless_gone(request, self.pictures([content for _, content in files]))
                files.clear()
                await held.aclose()
                try:
                    answer = await unless_gone(request, self.batcher.ask(pictures, decode=decode))
                except (MemoryError, RuntimeError) as error:
                    short = ("allocate memory", "out of memory")  # as torch says it of a processor's and of a GPU's
                    if isinstance(error, RuntimeError) and not any(words in str(error) for words in short):
                        raise
                    raise HTTPException(503, "there is no memory left: try again in a second", AGAIN) from None
        return names, pictures, answer

    @contextlib.contextmanager
    def turn(self, client: str, count: int) -> Iterator[None]:
        """Lets `count` images of a client wait until the block ends.

        Raises:
            HTTPException: 429 or 503, too many wait already.
        """
        if self.waiting[client] + count > self.limits.waiting_of_one:
            raise HTTPException(429, "too many of your images are waiting: wait for their answers", AGAIN)
        if self.waiting.total() + count > self.limits.waiting:
            raise HTTPException(503, "too many images are waiting: try again in a second", AGAIN)
        self.waiting[client] += count
        try:
            yield
        finally:
            self.waiting[client] -= count
            if not self.waiting[client]:
                del self.waiting[client]

    async def pictures(self, contents: list[bytes]) -> np.ndarray:
        """Encoded images as uint8 (N, 3, S, S), decoded one at a time, so that others get a turn.

        Raises:
            HTTPException: one of them can't be used: 413, 415 or 422, with the reason.
        """
        if len(contents) > 1:
            total = await self.in_thread(functools.partial(_num_pixels, contents))
            if total > LARGEST_IMAGE_PIXELS:
                limit = f"the limit is {LARGEST_IMAGE_PIXELS:,}"
                raise HTTPException(413, f"the images have {total:,} pixels together, {limit}: send fewer")
        size = self.predictor.config.image_size
        pictures = []
        for number, content in enumerate(contents, 1):
            try:
                picture = await self.in_thread(functools.partial(_picture_or_why_not, content, size))
            except MemoryError:
                raise HTTPException(503, "there is no memory left for an image of this size", AGAIN) from None
            if isinstance(picture, PictureError):
                which = f"image {number} of {len(contents)}" if len(contents) > 1 else "the image"
                status = {TooManyPixelsError: 413, UnknownFormatError: 415}.get(type(picture), 422)
                raise HTTPException(status, f"{which} can't be used: {picture}")
            pictures.append(picture)
        return np.stack(pictures)

    async def in_thread(self, work: Any) -> Any:
        """What `work()` gives, of which only a few are done at a time."""
        return await to_thread.run_sync(work, limiter=self.workers)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Given]) -> Given:
    """What `work` gives; it is cancelled when the client goes.

    Raises:
        HTTPException: the client went, so nobody reads it.
    """
    working, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(400, "the client is gone")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        del working, gone  # else an error that passes holds this frame, this frame its task, and the task the error


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _picture_or_why_not(content: bytes, image_size: int) -> np.ndarray | PictureError:
    """What `read_picture` gives or raises: an error that leaves a thread is kept there, with all that it passed."""
    try:
        return read_picture(content, image_size, READ_FORMATS)
    except PictureError as error:
        return error.with_traceback(None)


def _num_pixels(contents: list[bytes]) -> int:
    return sum(num_pixels(content, READ_FORMATS) for content in contents)

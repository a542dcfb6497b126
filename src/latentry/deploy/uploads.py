"""The files of a request's form, read within limits and held in memory alone."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np
from fastapi import HTTPException
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from latentry.data.pictures import PictureError, TooManyPixelsError, UnknownFormatError, read_picture

FIELD = "images"
AGAIN = {"retry-after": "1"}
"""Sent to those who may try again when others have been answered."""
CLOSE = {"connection": "close"}
"""Sent to those whose request isn't read to its end."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much of its clients a service bears.

    Attributes:
        body_bytes: of one request.
        files: of one request.
        seconds: in which a body must have come.
        held_bytes: of all requests that are coming in or being decoded at one time.
        waiting: images that wait for the network at one time.
        waiting_of_one: those of one address.
    """

    body_bytes: int = 32 * 2**20
    files: int = 64
    seconds: float = 30.0
    held_bytes: int = 256 * 2**20
    waiting: int = 1024
    waiting_of_one: int = 512


class Uploads:
    """Reads forms, and knows how many bytes of all of them are held."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held_bytes = 0

    @contextlib.asynccontextmanager
    async def files_of(self, request: Request) -> AsyncIterator[list[tuple[str, bytes]]]:
        """The name and the content of each file that a form sends, at least one.

        Raises:
            HTTPException: with the status that applies, and why in one sentence.
        """
        body = bytearray()
        try:
            await self._read(request, body)
            yield await self._parsed(request, bytes(body))
        finally:
            self.held_bytes -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        """Adds what comes to `body`."""
        limits = self.limits
        too_large = HTTPException(
            413, f"the request has more than {limits.body_bytes:,} bytes: send fewer or smaller images", CLOSE
        )
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limits.body_bytes:
            raise too_large
        try:
            async with asyncio.timeout(limits.seconds):
                async for chunk in request.stream():
                    body += chunk
                    self.held_bytes += len(chunk)
                    if len(body) > limits.body_bytes:
                        raise too_large
                    if self.held_bytes > limits.held_bytes:
                        raise HTTPException(
                            503, "too many requests are coming in: try again in a second", AGAIN | CLOSE
                        )
        except TimeoutError:
            raise HTTPException(408, f"the request did not come within {limits.seconds:g} seconds", CLOSE) from None
        except ClientDisconnect:
            raise HTTPException(400, "the request was cut off") from None

    async def _parsed(self, request: Request, body: bytes) -> list[tuple[str, bytes]]:
        form_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if form_type != "multipart/form-data":
            raise HTTPException(415, f"the body is no multipart/form-data with files in the field {FIELD!r}")

        async def stream() -> AsyncGenerator[bytes, None]:
            yield body

        parser = MultiPartParser(request.headers, stream(), max_files=self.limits.files, max_fields=0, max_part_size=1)
        parser.spool_max_size = self.limits.body_bytes + 1  # so that nothing is written to disk
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if "Too many files" in error.message:
                raise HTTPException(413, f"the request has more than {self.limits.files} files: send fewer") from None
            if "Too many fields" in error.message:
                raise HTTPException(422, f"the form has a field that is no file in the field {FIELD!r}") from None
            raise HTTPException(400, "the body is no whole multipart form") from None
        files = form.multi_items()
        if not files or not all(name == FIELD and isinstance(file, UploadFile) for name, file in files):
            raise HTTPException(422, f"the form must have files in the field {FIELD!r}, and nothing else")
        return [(file.filename or "", await file.read()) for _, file in files if isinstance(file, UploadFile)]


def pictures_of(contents: list[bytes], image_size: int) -> np.ndarray:
    """Encoded images as uint8 (N, 3, S, S).

    Raises:
        HTTPException: one of them can't be used: 413, 415 or 422, with the reason.
    """
    pictures = []
    for number, content in enumerate(contents, 1):
        try:
            pictures.append(read_picture(content, image_size))
        except PictureError as error:
            which = f"image {number} of {len(contents)}" if len(contents) > 1 else "the image"
            status = {TooManyPixelsError: 413, UnknownFormatError: 415}.get(type(error), 422)
            raise HTTPException(status, f"{which} can't be used: {error}") from None
        except MemoryError:
            raise HTTPException(503, "there is no memory left for an image of this size", AGAIN) from None
    return np.stack(pictures)

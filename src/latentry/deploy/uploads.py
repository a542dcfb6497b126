"""The files of a request's form, read within limits and held in memory alone."""

import asyncio
import contextlib
import dataclasses
import email
from collections.abc import AsyncIterator
from email.message import Message

from fastapi import HTTPException
from starlette.requests import ClientDisconnect, Request

FIELD = "images"
AGAIN = {"retry-after": "1"}
"""Sent to those who may try again when others have been answered."""
CLOSE = {"connection": "close"}
"""Sent to those whose request isn't read to its end."""
PATIENCE = 4
"""How many times the largest body is read, and dropped, so that a client gets to hear that its own is too large."""
LARGEST_HEADER = 4096


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much of its clients a service bears.

    Attributes:
        body_bytes: of one request.
        files: of one request.
        seconds: in which a body must have come.
        held_bytes: of all requests that are coming in or being decoded at one time.
        waiting: images that are being decoded or wait for the network at one time.
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
        """The name and the content of each file that a form sends, at least one; held until the block ends.

        Raises:
            HTTPException: with the status that applies, and why in one sentence.
        """
        boundary = boundary_of(request.headers.get("content-type", ""))
        body = bytearray()
        try:
            await self._read(request, body)
            yield files_in(body, boundary, self.limits.files)
        finally:
            self.held_bytes -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        """Adds what comes to `body`."""
        limits = self.limits
        size, problem = 0, None
        try:
            async with asyncio.timeout(limits.seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > limits.body_bytes:
                        large = f"the request has more than {limits.body_bytes:,} bytes: send fewer or smaller images"
                        problem = HTTPException(413, large, CLOSE)
                    elif self.held_bytes + len(chunk) > limits.held_bytes:
                        busy = "too many requests are coming in: try again in a second"
                        problem = HTTPException(503, busy, AGAIN | CLOSE)
                    if problem is None:
                        body += chunk
                        self.held_bytes += len(chunk)
                    elif size > PATIENCE * limits.body_bytes:
                        break
        except TimeoutError:
            problem = problem or HTTPException(408, f"the request took more than {limits.seconds:g} seconds", CLOSE)
        except ClientDisconnect:
            problem = HTTPException(400, "the request was cut off", CLOSE)
        if problem is not None:
            raise problem


def boundary_of(content_type: str) -> bytes:
    """What stands between the parts of a form, by the header that says what a body is.

    Raises:
        HTTPException: 415.
    """
    form = Message()
    form["content-type"] = content_type
    try:
        boundary = form.get_boundary("")
    except (TypeError, ValueError):  # in a charset of which there is none, or in parts that can't be sorted
        boundary = ""
    if form.get_content_type() != "multipart/form-data" or not (boundary and boundary.isascii()):
        raise HTTPException(415, f"the body is no multipart/form-data with files in the field {FIELD!r}")
    return boundary.encode()


def files_in(body: bytearray, boundary: bytes, most: int) -> list[tuple[str, bytes]]:
    """Name and content of each file of a multipart form, all in the field "images".

    Source: RFC 7578, and RFC 2046, section 5.1.

    Raises:
        HTTPException: 400, 413 or 422.
    """
    delimiter = b"--" + boundary
    first, *parts = body.split(b"\r\n" + delimiter, most + 2)
    if first.startswith(delimiter):  # else it is a preamble, which says nothing
        parts.insert(0, first[len(delimiter) :])
    if len(parts) > most + 1:
        raise HTTPException(413, f"the request has more than {most} files: send fewer")
    if not parts or not parts.pop().startswith(b"--"):
        raise HTTPException(400, "the body is no whole multipart form")
    files = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        described = email.message_from_string(head[:LARGEST_HEADER].decode(errors="replace").lstrip())
        try:
            name = described.get_filename()
            field = described.get_param("name", header="content-disposition")
        except (TypeError, ValueError):  # likewise
            name = field = None
        if name is None or field != FIELD:
            raise HTTPException(422, f"the form must have files in the field {FIELD!r}, and nothing else")
        files.append((name.encode(errors="replace").decode(), bytes(content)))  # half a letter can't be sent back
    if not files:
        raise HTTPException(422, f"the form has no file in the field {FIELD!r}")
    return files

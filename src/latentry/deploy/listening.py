"""Between the network and the web service: the socket, how long silence is borne, what every answer carries."""

import ipaddress
import signal
import socket
import sys
import traceback
from asyncio import Transport
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from latentry.errors import RecipeError, RunError
from latentry.progress import say

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
SILENT_SECONDS = 30.0
"""For how long a connection may be open without a request under way."""
STOPPING_SECONDS = 30
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Refuses requests to another than the `hosts` (none: to any), and has a browser do no more than it should.

    A page from elsewhere, whose name was pointed at this machine, then can't ask. Where the service fails, client and
    log are told so, and neither anything of the other.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        app = self.app
        if scope["type"] == "http" and self.hosts and _host(scope) not in self.hosts:
            app = JSONResponse({"detail": f"this service answers as {', '.join(self.hosts[:2])}"}, 400)
        try:
            await app(scope, receive, with_headers)
        except Exception as error:  # noqa: BLE001 - whatever it is, its words may be a client's
            place = traceback.extract_tb(error.__traceback__)[-1]
            say(f"failed: {type(error).__name__} in {Path(place.filename).name}, line {place.lineno}")
            if not begun:
                answer = JSONResponse({"detail": "the service failed: tell those who run it"}, 500)
                await answer(scope, receive, with_headers)


class ImpatientProtocol(H11Protocol):
    """Closes connections on which nothing has been asked for a while, or whose request stays half sent."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(SILENT_SECONDS, self.close_silent, None, 0)

    def close_silent(self, seen: Any, unread: int) -> None:
        """Closes it if the request that was `seen` last is answered and no other came.

        Or if its answer is read too slowly: of the bytes that were `unread` more than half still are.
        """
        left = self.transport.get_write_buffer_size()
        if self.transport.is_closing() and not left:
            return
        answered = self.cycle is seen and (seen is None or seen.response_complete)
        if (answered and not left) or (unread and self.cycle is seen and left > unread / 2):
            self.transport.abort()
        else:
            self.loop.call_later(SILENT_SECONDS, self.close_silent, self.cycle, left)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 is any that is free.

    Raises:
        RunError: it is taken, or none of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise RunError(f"can't listen on {host}, port {port} ({reason}): choose another --port or --host") from None
    # Else an answer's body waits until its header is acknowledged, which takes some clients 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address_of(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local_names(listening: socket.socket) -> tuple[str, ...]:
    """What clients may call it; none, which is anything, where other machines reach it too."""
    address = listening.getsockname()[0]
    if not ipaddress.ip_address(address).is_loopback:
        return ()
    return LOOPBACK if address in LOOPBACK else (*LOOPBACK, address)


def check_token(token: str) -> None:
    """Raises RecipeError where a token can't be sent in a header."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise RecipeError("the token has a blank or a letter that is not ASCII, so no header holds it: use another")


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serves on a socket until Ctrl-C or SIGTERM; what was asked before is still answered, within half a minute."""
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOPPING_SECONDS,
    )
    _allow_connections()
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # who reads, decodes and sends needs a core, too
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the server raises them once more when it has stopped
    uvicorn.Server(config).run(sockets=[listening])


def _allow_connections() -> None:
    """Each is an open file, of which a process may usually have 1,024, and as many as the system lets it if it asks."""
    if sys.platform == "linux":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _host(scope: Scope) -> str:
    name = Headers(scope=scope).get("host", "").lower()
    return name.rpartition(":")[0] if not name.endswith("]") and ":" in name else name

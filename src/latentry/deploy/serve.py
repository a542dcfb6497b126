"""A finished model as a web service: images in; classes, reconstructions and neighbours out; and a page to try it."""

import asyncio
import collections
import functools
import hmac
import importlib.resources
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any

import jinja2
import numpy as np
import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latentry import __version__
from latentry.data.pictures import picture_uri
from latentry.deploy.api import ANSWERS, FORM, PROBLEMS, SCHEMAS, Health, Neighbourhood, Prediction, Reconstruction
from latentry.deploy.batching import Batcher, Full
from latentry.deploy.neighbours import Neighbours
from latentry.deploy.predictor import Answer, Predictor
from latentry.deploy.uploads import AGAIN, Limits, Uploads, pictures_of
from latentry.errors import RunError

BEARER = HTTPBearer(auto_error=False)
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
"""Addresses, and names that requests call them by."""
NUM_DECODERS = 2
"""Images that are decoded at one time; a large one takes hundreds of megabytes meanwhile."""
MOST_NEIGHBOURS = 50
STOPPING_SECONDS = 30
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
ASSETS = {"page.js": "text/javascript", "style.css": "text/css"}


class Service:
    """What the routes share: a predictor behind a queue, and how much its clients ask of it."""

    def __init__(self, predictor: Predictor, neighbours: Neighbours | None, token: str, limits: Limits) -> None:
        self.predictor = predictor
        self.neighbours = neighbours
        self.token = token
        self.limits = limits
        self.uploads = Uploads(limits)
        self.batcher = Batcher(predictor, limits.waiting)
        self.decoders = CapacityLimiter(NUM_DECODERS)
        self.waiting: collections.Counter[str] = collections.Counter()

    def check_token(self, given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        """Raises HTTPException 401 where a request hasn't the token."""
        if given is None or not hmac.compare_digest(given.credentials.encode(), self.token.encode()):
            remedy = "send it as Authorization: Bearer TOKEN"
            raise HTTPException(401, f"the token is missing or wrong: {remedy}", {"www-authenticate": "Bearer"})

    async def answered(self, request: Request, *, rebuild: bool) -> tuple[list[str], np.ndarray, Answer]:
        """Names, uint8 pictures (N, 3, S, S) and answer of the files that `request` sends.

        Raises:
            HTTPException: the request, a file or the number of waiting images is off.
        """
        async with self.uploads.files_of(request) as files:
            names = [name for name, _ in files]
            contents = [content for _, content in files]
            decode = functools.partial(pictures_of, contents, self.predictor.config.image_size)
            pictures = await to_thread.run_sync(decode, limiter=self.decoders)
        client = request.client.host if request.client else ""
        if self.waiting[client] + len(names) > self.limits.waiting_of_one:
            raise HTTPException(429, "too many of your images are waiting: wait for their answers", AGAIN)
        self.waiting[client] += len(names)
        try:
            return names, pictures, await self.batcher.ask(pictures, decode=rebuild)
        except (Full, MemoryError):
            raise HTTPException(503, "too many images are waiting: try again in a second", AGAIN) from None
        finally:
            self.waiting[client] -= len(names)
            if not self.waiting[client]:
                del self.waiting[client]


def create_app(
    predictor: Predictor,
    neighbours: Neighbours | None = None,
    *,
    token: str = "",
    hosts: tuple[str, ...] = ("*",),
    limits: Limits | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    With a `token` every question must bring it. Requests to another than the `hosts` are refused, so that a page from
    elsewhere, whose name was pointed at this machine, can't ask.
    """
    service = Service(predictor, neighbours, token, limits or Limits())
    config = predictor.config
    app = FastAPI(
        title="latentry",
        version=__version__,
        summary=f"A model of {len(config.class_names)} classes: {', '.join(config.class_names)}."[:400],
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(WithHeaders)
    asking: dict[str, Any] = {
        "dependencies": [Depends(service.check_token)] if token else [],
        "responses": PROBLEMS,
        "openapi_extra": FORM,
    }

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.post("/predict", response_model=dict[str, list[Prediction]], **asking)
    async def predict(
        request: Request, top: Annotated[int, Query(ge=1, description="How many classes to name.")] = 5
    ) -> Response:
        """Say of each image which class it is, and how likely."""
        if config.class_shares and not config.trained_shares:
            raise HTTPException(404, "this model has no trained classifier")
        names, _, answer = await service.answered(request, rebuild=False)
        best = np.argsort(-answer.probabilities, axis=1, kind="stable")[:, :top]
        return answers(
            {
                "file": name,
                "classes": [
                    {"name": config.class_names[label], "probability": float(chances[label])} for label in labels
                ],
            }
            for name, labels, chances in zip(names, best, answer.probabilities, strict=True)
        )

    @app.post("/reconstruct", response_model=dict[str, list[Reconstruction]], **asking)
    async def reconstruct(request: Request) -> Response:
        """Rebuild each image from the hidden layer, and say how far off that is."""
        if config.usual_error is None:
            raise HTTPException(404, "this model has no trained decoder, or none whose usual error is known")
        names, pictures, answer = await service.answered(request, rebuild=True)
        rebuilt = (answer.reconstructions * 255).round().astype(np.uint8)
        return answers(
            {
                "file": name,
                "original": picture_uri(picture),
                "reconstruction": picture_uri(reconstruction),
                "error": float(error),
                "usual_error": config.usual_error,
            }
            for name, picture, reconstruction, error in zip(names, pictures, rebuilt, answer.errors, strict=True)
        )

    @app.post("/neighbours", response_model=dict[str, list[Neighbourhood]], **asking)
    async def near(
        request: Request, count: Annotated[int, Query(ge=1, le=MOST_NEIGHBOURS, description="How many.")] = 8
    ) -> Response:
        """Show the training images that lie nearest to each image in the hidden layer."""
        if neighbours is None:
            raise HTTPException(404, "this model was served without its training images")
        names, _, answer = await service.answered(request, rebuild=False)
        found = await asyncio.to_thread(neighbours.nearest, answer.latents, count)
        return answers(
            {
                "file": name,
                "neighbours": [
                    {"name": neighbours.class_name(place), "distance": float(far), "picture": picture_uri(pixels)}
                    for place, far, pixels in zip(places, distances, neighbours.images.images[places], strict=True)
                ],
            }
            for name, places, distances in zip(names, *found, strict=True)
        )

    @app.get("/health")
    async def health() -> Health:
        """Say what this service offers, and how busy it is."""
        return Health(
            version=__version__,
            class_names=list(config.class_names),
            image_size=config.image_size,
            reconstructs=config.usual_error is not None,
            has_neighbours=neighbours is not None,
            body_bytes=service.limits.body_bytes,
            waiting=service.batcher.num_waiting,
        )

    page = asset("index.html")
    known = {"answers": ANSWERS, "api_schemas": SCHEMAS, "problems": PROBLEMS}
    reference = jinja2.Template(asset("reference.html"), autoescape=True).render(api=app.openapi(), **known)
    pages = {"/": (page, "text/html"), "/docs": (reference, "text/html")}
    pages |= {f"/{name}": (asset(name), kind) for name, kind in ASSETS.items()}
    for path, (content, kind) in pages.items():
        app.add_api_route(path, sends(content, kind), include_in_schema=False)
    return app


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serves on a socket until Ctrl-C or SIGTERM; what was asked before is still answered, within half a minute."""
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=STOPPING_SECONDS)
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the server raises them once more when it has stopped
    server.run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 is any that is free.

    Raises:
        RunError: it is taken, or none of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
        # Else an answer's body waits until its header is acknowledged, which takes some clients 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise RunError(f"can't listen on {host}, port {port} ({reason}): choose another --port or --host") from None


def asset(name: str) -> str:
    """A file of the page."""
    return importlib.resources.files("latentry.deploy").joinpath("web", name).read_text(encoding="utf-8")


def sends(content: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    """A route that sends the same thing always."""

    async def send() -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return send


def answers(rows: Iterable[dict[str, Any]]) -> JSONResponse:
    """What a route says of the images that it was sent, in their order."""
    return JSONResponse({"answers": list(rows)})


class WithHeaders:
    """Adds to every response what keeps a browser from doing more with it than it should."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)

"""A finished model as a web service: images in; classes, reconstructions and neighbours out; and a page to try it."""

import hmac
import importlib.resources
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import jinja2
import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from latentry import __version__
from latentry.data.pictures import picture_uri
from latentry.deploy.api import ANSWERS, FORM, PROBLEMS, SCHEMAS, Health, Neighbourhood, Prediction, Reconstruction
from latentry.deploy.listening import Guard
from latentry.deploy.neighbours import Neighbours
from latentry.deploy.predictor import Answer, Predictor
from latentry.deploy.service import Service
from latentry.deploy.uploads import Limits

BEARER = HTTPBearer(auto_error=False)
MOST_NEIGHBOURS = 50
MOST_PICTURES = 400
"""Of neighbours in one answer."""
ASSETS = {"page.js": "text/javascript", "style.css": "text/css"}


def create_app(
    predictor: Predictor,
    neighbours: Neighbours | None = None,
    *,
    token: str = "",
    hosts: tuple[str, ...] = (),
    limits: Limits | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    With a `token` every question must bring it. Requests to another than the `hosts`, if there are some, are refused.
    """
    config = predictor.config
    service = Service(predictor, limits or Limits())
    app = FastAPI(
        title="latentry",
        version=__version__,
        summary=f"A model of {len(config.class_names)} classes: {', '.join(config.class_names)}."[:400],
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard, hosts=hosts)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    async def check_token(given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            remedy = "send it as Authorization: Bearer TOKEN"
            raise HTTPException(401, f"the token is missing or wrong: {remedy}", {"www-authenticate": "Bearer"})

    asking: dict[str, Any] = {
        "dependencies": [Depends(check_token)] if token else [],
        "responses": PROBLEMS,
        "openapi_extra": FORM,
    }

    add_questions(app, service, neighbours, asking)

    @app.get("/health")
    async def health() -> Health:
        """Say what this service offers, and how busy it is."""
        return Health(
            version=__version__,
            class_names=list(config.class_names),
            image_size=config.image_size,
            predicts=config.predicts,
            reconstructs=config.usual_error is not None,
            has_neighbours=neighbours is not None,
            body_bytes=service.limits.body_bytes,
            waiting=service.waiting.total(),
        )

    add_pages(app)
    return app


def add_questions(app: FastAPI, service: Service, neighbours: Neighbours | None, asking: dict[str, Any]) -> None:
    """The three routes that take images; `asking` is what they share for FastAPI."""
    config = service.predictor.config

    @app.post("/predict", response_model=dict[str, list[Prediction]], **asking)
    async def predict(
        request: Request, top: Annotated[int, Query(ge=1, description="How many classes to name.")] = 5
    ) -> Response:
        """Say of each image which class it is, and how likely."""
        if not config.predicts:
            raise HTTPException(404, "this model has no trained classifier")
        names, _, answer = await service.answered(request, decode=False)
        return JSONResponse({"answers": predictions(names, answer.probabilities, config.class_names, top)})

    @app.post("/reconstruct", response_model=dict[str, list[Reconstruction]], **asking)
    async def reconstruct(request: Request) -> Response:
        """Rebuild each image from the hidden layer, and say how far off that is."""
        if config.usual_error is None:
            raise HTTPException(404, "this model has no trained decoder, or none whose usual error is known")
        names, pictures, answer = await service.answered(request, decode=True)
        return await encoded(reconstructions, names, pictures, answer, config.usual_error)

    @app.post("/neighbours", response_model=dict[str, list[Neighbourhood]], **asking)
    async def near(
        request: Request, count: Annotated[int, Query(ge=1, le=MOST_NEIGHBOURS, description="How many.")] = 8
    ) -> Response:
        """Show the training images that lie nearest to each image in the hidden layer."""
        if neighbours is None:
            raise HTTPException(404, "this model was served without its training images")
        names, _, answer = await service.answered(request, decode=False)
        if len(names) * count > MOST_PICTURES:
            raise HTTPException(
                413, f"{count} neighbours of {len(names)} images are more than {MOST_PICTURES}: ask for fewer"
            )
        return await encoded(neighbourhoods, names, neighbours, answer.latents, count)

    async def encoded(rows: Callable[..., list[dict[str, Any]]], *arguments: Any) -> Response:
        # Pictures are encoded in a thread, so that nobody else waits for it.
        response: Response = await service.in_thread(lambda: JSONResponse({"answers": rows(*arguments)}))
        return response


def add_pages(app: FastAPI) -> None:
    """The page to try the model, and the reference of its routes."""
    page = asset("index.html")
    known = {"answers": ANSWERS, "api_schemas": SCHEMAS, "problems": PROBLEMS}
    reference = jinja2.Template(asset("reference.html"), autoescape=True).render(api=app.openapi(), **known)
    pages = {"/": (page, "text/html"), "/docs": (reference, "text/html")}
    pages |= {f"/{name}": (asset(name), kind) for name, kind in ASSETS.items()}
    for path, (content, kind) in pages.items():
        app.add_api_route(path, sends(content, kind), include_in_schema=False)


def predictions(
    names: list[str], probabilities: np.ndarray, class_names: tuple[str, ...], top: int
) -> list[dict[str, Any]]:
    """A `Prediction` for each of N images, of probabilities (N, K)."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        {
            "file": name,
            "classes": [{"name": class_names[label], "probability": float(chances[label])} for label in labels],
        }
        for name, labels, chances in zip(names, best, probabilities, strict=True)
    ]


def reconstructions(names: list[str], pictures: np.ndarray, answer: Answer, usual_error: float) -> list[dict[str, Any]]:
    """A `Reconstruction` for each of the uint8 pictures (N, 3, S, S)."""
    rebuilt = (answer.reconstructions * 255).round().astype(np.uint8)
    return [
        {
            "file": name,
            "original": picture_uri(picture),
            "reconstruction": picture_uri(reconstruction),
            "error": float(error),
            "usual_error": usual_error,
        }
        for name, picture, reconstruction, error in zip(names, pictures, rebuilt, answer.errors, strict=True)
    ]


def neighbourhoods(names: list[str], neighbours: Neighbours, latents: np.ndarray, count: int) -> list[dict[str, Any]]:
    """A `Neighbourhood` for each of the latents (N, c, h, w)."""
    found = zip(names, *neighbours.nearest(latents, count), strict=True)
    return [
        {
            "file": name,
            "neighbours": [
                {"name": neighbours.class_name(place), "distance": float(far), "picture": picture_uri(pixels)}
                for place, far, pixels in zip(places, distances, neighbours.images.images[places], strict=True)
            ],
        }
        for name, places, distances in found
    ]


def asset(name: str) -> str:
    """A file of the page."""
    return importlib.resources.files("latentry.deploy").joinpath("web", name).read_text(encoding="utf-8")


def sends(content: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    """A route that sends the same thing always."""

    async def send() -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return send

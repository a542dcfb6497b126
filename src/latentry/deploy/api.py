"""What the web service says, and why it refuses: the schemas behind its routes."""

from typing import Any

from pydantic import BaseModel

from latentry.deploy.uploads import FIELD


class Class(BaseModel):
    """A class and how likely it is."""

    name: str
    probability: float


class Prediction(BaseModel):
    """The classes of an image, the likeliest first."""

    file: str
    classes: list[Class]


class Reconstruction(BaseModel):
    """An image as the network sees it, and as its decoder rebuilds it from the hidden layer: data addresses of PNGs.

    The error is the mean squared one of pixels in [0, 1]; `usual_error` is what 99 of 100 validation images stay below.
    """

    file: str
    original: str
    reconstruction: str
    error: float
    usual_error: float


class Neighbour(BaseModel):
    """A training image: its class ("" where it has none), its distance in the hidden layer, a data address of it."""

    name: str
    distance: float
    picture: str


class Neighbourhood(BaseModel):
    """The training images nearest to an image, the nearest first."""

    file: str
    neighbours: list[Neighbour]


class Health(BaseModel):
    """What a service offers, and how many images wait for its network."""

    version: str
    class_names: list[str]
    image_size: int
    predicts: bool
    reconstructs: bool
    has_neighbours: bool
    body_bytes: int
    waiting: int


class Problem(BaseModel):
    """Why a request was refused, in one sentence."""

    detail: str


ANSWERS = {"/predict": Prediction, "/reconstruct": Reconstruction, "/neighbours": Neighbourhood, "/health": Health}
"""What each route says of an image; "/health" of the service."""
SCHEMAS = (Prediction, Class, Reconstruction, Neighbourhood, Neighbour, Health)
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "The body is no whole form, or the request was made to another host.",
        401: "The token is missing or wrong.",
        404: "This model can't do that.",
        408: "The body came too slowly.",
        413: "There are too many bytes, files, pixels or neighbours.",
        415: "A file is no image of a format that is read, or the body no form.",
        422: "A field or a number is off, or an image is empty or damaged.",
        429: "Too many images of this client are waiting.",
        503: "Too many images are waiting, too many bytes are being read, or memory is short.",
    }.items()
}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}

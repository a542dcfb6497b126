"""The web service: answers that are the predictor's, a code and a sentence for everything else."""

import asyncio
import base64
import gc
import io
import re
import struct
import weakref
import zlib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from latentry.data.pictures import PictureError
from latentry.deploy import service
from latentry.deploy.listening import LOOPBACK, ImpatientProtocol, check_token, listen, local_names
from latentry.deploy.neighbours import neighbours_of
from latentry.deploy.predictor import Predictor
from latentry.deploy.serve import create_app
from latentry.deploy.uploads import Limits
from latentry.errors import RecipeError, RunError
from latentry.run import Run

LIMIT = 300_000


@pytest.fixture(scope="module")
def predictor(finished_run: Path) -> Predictor:
    return Predictor.load(finished_run)


@pytest.fixture(scope="module")
def client(finished_run: Path, predictor: Predictor) -> TestClient:
    neighbours = neighbours_of(Run.open(finished_run), predictor)
    return TestClient(create_app(predictor, neighbours, limits=Limits(body_bytes=LIMIT)))


def encoded(form: str, size: tuple[int, int] = (32, 32), mode: str = "RGB", **options: Any) -> bytes:
    """A picture with something in it, as the content of a file."""
    levels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded_picture(Image.fromarray(levels).convert(mode), form, **options)


def encoded_picture(picture: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def vast_png() -> bytes:
    """A PNG that says it has 20,000 x 20,000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def flat_webp() -> bytes:
    """Four megapixels in a hundred bytes."""
    return encoded_picture(Image.new("RGB", (2000, 2000)), "WEBP", lossless=True)


def deep() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 65_536, (20, 20), dtype=np.uint16)).save(content, "PNG")
    return content.getvalue()


def animated() -> bytes:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue", "green")]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


def form(*contents: bytes, field: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (f"{number}.png", content)) for number, content in enumerate(contents)]


def named(name: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="images"; ' + name + b"\r\n\r\nabc\r\n--x--"


def decoded(address: str) -> np.ndarray:
    assert address.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))).transpose(2, 0, 1)


def test_answers_are_the_predictors_in_the_order_of_the_files(client, predictor, toy_folder):
    files = sorted((toy_folder / "test").rglob("*.png"))[::7]
    contents = [file.read_bytes() for file in files]
    pictures = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files])
    expected = predictor.answer(pictures)
    rows = client.post("/predict?top=2", files=form(*contents)).json()["answers"]
    assert [row["file"] for row in rows] == [f"{number}.png" for number in range(len(files))]
    for row, chances in zip(rows, expected.probabilities, strict=True):
        best = np.argsort(-chances)[:2]
        assert [entry["name"] for entry in row["classes"]] == [predictor.config.class_names[label] for label in best]
        assert [entry["probability"] for entry in row["classes"]] == pytest.approx(chances[best].tolist(), abs=1e-6)
    rows = client.post("/reconstruct", files=form(*contents)).json()["answers"]
    for row, picture, rebuilt, error in zip(rows, pictures, expected.reconstructions, expected.errors, strict=True):
        assert np.array_equal(decoded(row["original"]), picture)
        assert np.abs(decoded(row["reconstruction"]) / 255 - rebuilt).max() < 0.01
        assert row["error"] == pytest.approx(error, rel=1e-3)
        assert row["usual_error"] == predictor.config.usual_error


def test_the_nearest_neighbour_of_a_training_image_is_itself(client, toy_folder, finished_run):
    split = Run.open(finished_run).split_file.read_text()
    first = int(re.search(r'"train": \[\s*(\d+)', split).group(1))
    file = sorted((toy_folder / "train").rglob("*.png"))[first]
    (row,) = client.post("/neighbours?count=3", files=form(file.read_bytes())).json()["answers"]
    assert len(row["neighbours"]) == 3
    nearest = row["neighbours"][0]
    assert nearest["name"] == file.parent.name
    assert np.array_equal(decoded(nearest["picture"]), np.asarray(Image.open(file)).transpose(2, 0, 1))


FORM = {"content-type": "multipart/form-data; boundary=x"}
ROUTES = ["/predict", "/reconstruct", "/neighbours"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_name_of_half_a_letter_is_answered(client, route):
    disposition = b"--x\r\nContent-Disposition: form-data; name=\"images\"; filename*=unicode_escape''%5cud800\r\n\r\n"
    answer = client.post(route, content=disposition + encoded("PNG") + b"\r\n--x--\r\n", headers=FORM)
    assert answer.status_code == 200, answer.text
    assert answer.json()["answers"][0]["file"] == "?"


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b"hello, this is no image", 415, "it is no image of a format that is read"),
        (encoded("PNG")[:900], 422, "it is damaged or cut off"),
        (b"", 422, "it is empty"),
        (vast_png(), 413, "it has far more than 50,000,000 pixels, the limit"),
        (bytes(LIMIT), 413, "the request has more than 300,000 bytes"),
        (encoded("PNG", (1, 1)), 200, ""),
        (animated(), 200, ""),
        (deep(), 200, ""),
        (encoded("JPEG", mode="CMYK"), 200, ""),
        (encoded("PNG", mode="P"), 200, ""),
        (encoded("WEBP", (90, 40)), 200, ""),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
def test_every_kind_of_file_has_its_code_and_a_sentence(client, route, content, status, sentence):
    answer = client.post(route, files=form(content))
    assert answer.status_code == status, answer.text
    if status != 200:
        assert sentence in answer.json()["detail"]
        assert answer.json()["detail"].count("\n") == 0


def test_what_was_refused_is_not_kept(client, monkeypatch):
    """Not even until Python next looks for what refers to itself, which can take a service hours."""
    held: list[weakref.ref[Limits]] = []

    def refuse(*_: Any, **__: Any) -> None:
        large = Limits()
        held.append(weakref.ref(large))
        raise PictureError(f"it is none, whatever the {large.files} others are")

    monkeypatch.setattr(service, "read_picture", refuse)
    gc.disable()
    try:
        for _ in range(4):
            assert client.post("/predict", files=form(encoded("PNG"))).status_code == 422
        assert [reference() for reference in held[:-1]] == [None] * 3  # the last may be on its way still
    finally:
        gc.enable()


two_files = b"".join(
    b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n' + encoded("PNG") + b"\r\n"
    for _ in range(2)
)
two_files += b"--x--\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        ({"files": form(encoded("PNG"), field="image")}, 422, "files in the field 'images', and nothing else"),
        ({"files": form(*[b""] * 1000)}, 413, "the request has more than 64 files"),
        ({"files": form(encoded("PNG"), b"text")}, 415, "image 2 of 2 can't be used"),
        ({"files": form(encoded("PNG")), "data": {"x": "1"}}, 422, "files in the field 'images', and nothing else"),
        ({"content": two_files[:-80], "headers": FORM}, 400, "no whole multipart"),
        ({"content": two_files[:150], "headers": FORM}, 400, "no whole multipart"),
        ({"content": b"--x--", "headers": FORM}, 422, "no file in the field 'images'"),
        ({"content": named(b"filename*=undefined''x.png"), "headers": FORM}, 422, "and nothing else"),
        ({"content": named(b"filename*=u\0tf''x.png"), "headers": FORM}, 422, "and nothing else"),
        ({"content": named(b"filename*=a; filename*0=b"), "headers": FORM}, 422, "and nothing else"),
        (
            {"content": b"abc", "headers": {"content-type": "multipart/form-data; boundary*=a; boundary*0=b"}},
            415,
            "the body is no multipart/form-data",
        ),
        (
            {"content": b"abc", "headers": {"content-type": "multipart/form-data; boundary*=idna''x"}},
            415,
            "the body is no multipart/form-data",
        ),
        ({"content": b"--x\r\n\r\nabc\r\n--x--", "headers": FORM}, 422, "and nothing else"),
        ({"files": form(*[flat_webp()] * 20)}, 413, "the images have 80,000,000 pixels together"),
        ({"content": b"abc"}, 415, "the body is no multipart/form-data"),
        (
            {"content": b"abc", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "no whole multipart",
        ),
        ({"content": b"abc", "headers": {"content-type": "multipart/form-data"}}, 415, "the body is no multipart"),
        ({"files": form(encoded("PNG")), "params": {"top": 0}}, 422, "top: Input should be greater than or equal to 1"),
        ({"files": form(encoded("PNG")), "params": {"top": "many"}}, 422, "top: Input should be a valid integer"),
    ],
)
def test_every_kind_of_request_has_its_code_and_a_sentence(client, request_, status, sentence):
    answer = client.post("/predict", **request_)
    assert (answer.status_code, sentence in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("limits", "status", "sentence"),
    [
        (Limits(waiting=1), 503, "too many images are waiting"),
        (Limits(waiting_of_one=1), 429, "too many of your images are waiting"),
        (Limits(held_bytes=100), 503, "too many requests are coming in"),
    ],
)
def test_too_much_at_a_time_is_put_off(predictor, limits, status, sentence):
    client = TestClient(create_app(predictor, limits=limits))
    answer = client.post("/predict", files=form(encoded("PNG"), encoded("PNG")))
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
    assert sentence in answer.json()["detail"]


def test_those_who_were_answered_wait_no_more(predictor):
    client = TestClient(create_app(predictor, limits=Limits(waiting_of_one=2, held_bytes=20_000)))
    for _ in range(4):
        assert client.post("/predict", files=form(encoded("PNG"), encoded("PNG"))).status_code == 200
        assert client.post("/predict", files=form(b"text")).status_code == 415
    assert client.get("/health").json()["waiting"] == 0


def asked(app: FastAPI, messages: list[dict[str, Any]], pause_seconds: float) -> dict[str, Any]:
    """The first message that `app` answers a POST to /predict with, whose body comes in `messages`, then stops."""
    sent: list[dict[str, Any]] = []
    todo = iter(messages)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause_seconds)
        message = next(todo, None)
        return message if message is not None else await asyncio.sleep(60, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/predict",
        "raw_path": b"/predict", "root_path": "", "scheme": "http", "query_string": b"", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2), "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]


def test_a_body_that_comes_slowly_or_never_ends_or_breaks_off_is_given_up(predictor):
    app = create_app(predictor, limits=Limits(seconds=0.3, body_bytes=10_000))
    piece = {"type": "http.request", "body": bytes(1000), "more_body": True}
    assert asked(app, [piece], 0.0)["status"] == 408
    assert asked(app, [piece] * 1000, 0.001)["status"] == 413
    assert asked(app, [piece, {"type": "http.disconnect"}], 0.0)["status"] == 400
    whole = {"type": "http.request", "body": two_files, "more_body": False}
    assert asked(app, [whole, {"type": "http.disconnect"}], 0.0)["status"] == 400
    assert TestClient(app).post("/predict", files=form(encoded("PNG"))).status_code == 200


def test_a_token_keeps_others_out(predictor):
    client = TestClient(create_app(predictor, token="sesame"))
    files = form(encoded("PNG"))
    for headers in ({}, {"authorization": "Bearer guess"}, {"authorization": "Basic sesame"}):
        answer = client.post("/predict", files=files, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.post("/predict", files=files, headers={"authorization": "Bearer sesame"}).status_code == 200
    assert client.get("/").status_code == client.get("/health").status_code == 200


def test_a_model_says_what_it_cannot_do(predictor, finished_run):
    app = create_app(Predictor.load(finished_run), None)
    answer = TestClient(app).post("/neighbours", files=form(encoded("PNG")))
    assert (answer.status_code, answer.json()["detail"]) == (404, "this model was served without its training images")
    blind = Predictor.load(finished_run)
    blind.config = blind.config.model_copy(update={"usual_error": None, "trained_shares": ()})
    client = TestClient(create_app(blind))
    assert client.post("/reconstruct", files=form(encoded("PNG"))).status_code == 404
    assert client.post("/predict", files=form(encoded("PNG"))).status_code == 404
    assert (client.get("/health").json()["reconstructs"], client.get("/health").json()["predicts"]) == (False, False)


def test_pages_load_nothing_from_elsewhere_and_say_so(client):
    for path in ("/", "/docs", "/page.js", "/style.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert not re.search(r"(?:https?:)?//(?!HOST)[\w.]+", re.sub(r"//\s.*", "", answer.text)), path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    reference = client.get("/docs").text
    assert all(f"<code>POST {route}</code>" in reference for route in ("/predict", "/reconstruct", "/neighbours"))
    described = client.get("/openapi.json").json()
    assert described["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert "429" in described["paths"]["/predict"]["post"]["responses"]


def test_a_name_that_was_pointed_at_this_machine_is_refused(predictor):
    client = TestClient(create_app(predictor, hosts=LOOPBACK))
    for host, status in (("LocalHost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example", 400)):
        assert client.get("/health", headers={"host": host}).status_code == status, host
    assert client.get("/health", headers={"host": "x"}).json() == {
        "detail": "this service answers as 127.0.0.1, localhost"
    }


@pytest.mark.parametrize("token", ["schlüssel", "open sesame", "a\tb"])
def test_a_token_that_no_header_holds_is_refused(token):
    with pytest.raises(RecipeError, match="the token has a blank or a letter that is not ASCII"):
        check_token(token)


def test_a_failure_says_nothing_of_the_inside_nor_of_the_client(predictor, monkeypatch, capfd):
    client = TestClient(create_app(predictor))

    def failing(*_, **__):
        raise ValueError("what a client sent")

    monkeypatch.setattr(predictor, "answer", failing)
    answer = client.post("/predict", files=form(encoded("PNG")))
    assert (answer.status_code, answer.json()) == (500, {"detail": "the service failed: tell those who run it"})
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    logged = "".join(capfd.readouterr())
    assert "ValueError in test_serve.py, line" in logged
    assert "what a client sent" not in logged

    def starved(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 999 bytes")

    monkeypatch.setattr(predictor, "answer", starved)
    assert client.post("/predict", files=form(encoded("PNG"))).status_code == 503


@pytest.mark.parametrize(
    ("host", "names"), [("127.0.0.1", LOOPBACK), ("127.0.0.2", (*LOOPBACK, "127.0.0.2")), ("0.0.0.0", ())]
)
def test_it_answers_to_the_names_it_has(host, names):
    with listen(host, 0) as bound:
        assert local_names(bound) == names


def test_an_answer_that_is_hardly_read_is_not_held():
    protocol = object.__new__(ImpatientProtocol)
    protocol.loop, protocol.transport, protocol.cycle = Mock(), Mock(), Mock(response_complete=True)
    protocol.transport.is_closing.return_value = True
    for unread, before, aborted in ((9, 0, False), (4, 9, False), (5, 9, True)):
        protocol.transport.get_write_buffer_size.return_value = unread
        protocol.close_silent(protocol.cycle, before)
        assert protocol.transport.abort.called is aborted
    assert [call.args[3] for call in protocol.loop.call_later.call_args_list] == [9, 4]


def test_an_address_that_is_none_is_named():
    with pytest.raises(RunError, match=r"can't listen on ::1::, port 80 \([A-Z][a-z ]+\): choose another --port"):
        listen("::1::", 80)

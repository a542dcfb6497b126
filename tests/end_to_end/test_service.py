"""`latentry serve` as a process: many clients at once, clients that mean ill, and a clean end."""

import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentry.data.pictures import pillow_of, png_of
from latentry.deploy.predictor import Predictor

pytestmark = pytest.mark.slow
NUM_CLIENTS = 32
BOUNDARY = "boundary"
HEADERS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@contextlib.contextmanager
def serving(
    run: Path, *options: str, program: tuple[str, str] = ("-m", "latentry")
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process, and its port; it is stopped at the end, if it still runs."""
    command = [sys.executable, *program, "serve", str(run), "--port", "0", *options]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}  # glibc gives back what is freed, so a leak shows
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"serving .* at http://127\.0\.0\.1:(\d+);", line)
            assert found, line
            yield process, int(found.group(1))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port(finished_run: Path) -> Iterator[int]:
    with serving(finished_run) as (process, port):
        yield port
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""  # nothing of what clients sent, whatever it was


def body_of(*contents: bytes) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for content in contents
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def ask(port: int, body: bytes, route: str = "/predict?top=3") -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", route, body, HEADERS)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def health(port: int) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/health")
    return json.loads(connection.getresponse().read())


def test_each_of_many_clients_gets_its_own_images_answer(port, finished_run):
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (NUM_CLIENTS, 4, 3, 1, 1), dtype=np.uint8) * np.ones((32, 32), dtype=np.uint8)
    expected = Predictor.load(finished_run).answer(pictures.reshape(-1, 3, 32, 32)).errors.reshape(NUM_CLIENTS, 4)
    assert np.unique(expected.round(3)).size > NUM_CLIENTS  # so that mixing them up would show

    def one(client: int) -> list[float]:
        errors = []
        for picture in pictures[client]:
            status, content = ask(port, body_of(png_of(pillow_of(picture))), "/reconstruct")
            assert status == 200, content
            errors.append(content["answers"][0]["error"])
        return errors

    with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool:
        assert np.array(list(pool.map(one, range(NUM_CLIENTS)))) == pytest.approx(expected, rel=0.01)


def resident_bytes(port: int) -> int:
    """Of the process that listens on `port`."""
    listening = f"{port:04X}"
    (inode,) = [
        row.split()[9]
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if row.split()[1].endswith(f":{listening}") and row.split()[3] == "0A"
    ]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(link.readlink().name == f"socket:[{inode}]" for link in (process / "fd").iterdir()):
                status = (process / "status").read_text()
                return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024
    raise AssertionError(f"nobody listens on {port}")


def encoded(picture: Image.Image, form: str, **options: str) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def send_without_end(port: int) -> int:
    """How many bytes of one request the service takes before it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            + f"Content-Type: {HEADERS['content-type']}\r\n\r\n".encode()
        )
        piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 2**30:
                connection.sendall(piece)
                sent += len(piece)
    return sent


def test_those_who_mean_ill_leave_nothing_behind(port):
    tiff = encoded(Image.new("L", (40, 40)), "TIFF", compression="tiff_lzw")[:-30]
    large, small = body_of(encoded(Image.new("L", (6000, 6000)), "PNG")), body_of(png_of(Image.new("RGB", (40, 40))))
    refused = {400: small[:-60], 415: body_of(bytes(20 * 2**20)), 413: body_of(*[b""] * 1000)}
    refused[422] = small.replace(b'name="images"', b'name="pictures"')
    frames = [Image.new("RGB", (900, 900), colour) for colour in ("red", "blue", "green")]
    strange = body_of(
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        encoded(Image.fromarray(np.full((900, 900), 30_000, dtype=np.uint16)), "PNG"),
        encoded(Image.new("CMYK", (900, 900)), "JPEG"),
        png_of(Image.new("RGB", (1, 1))),
    )

    def round_of_all() -> None:
        assert ask(port, large)[0] == 200
        assert ask(port, strange)[0] == 200
        assert ask(port, body_of(tiff))[0] == 415
        for status, body in refused.items():
            assert ask(port, body)[0] == status
        assert send_without_end(port) < 200 * 2**20

    held = []
    for _ in range(12):
        round_of_all()
        held.append(resident_bytes(port))
    assert ask(port, small)[0] == 200
    assert max(held[-5:]) < max(held[2:7]) + 60 * 2**20


def test_what_was_asked_is_answered_before_it_stops(finished_run):
    with serving(finished_run, "--no-neighbours", "--views", "1") as (process, port):
        body = body_of(*[png_of(Image.new("RGB", (1500, 1500), "green"))] * 20)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pending = pool.submit(ask, port, body)
            while not health(port)["waiting"]:
                assert not pending.done()
            process.send_signal(signal.SIGTERM)
            status, content = pending.result()
        assert (status, len(content["answers"])) == (200, 20)
        assert process.wait(10) == 0


def test_an_address_that_is_taken_is_named(finished_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "latentry", "serve", str(finished_run), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"can't listen on 127.0.0.1, port {port} (Address already in use): choose another --port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_silent_and_half_sent_connections_are_closed(finished_run):
    changed = "from latentry.deploy import listening; listening.SILENT_SECONDS = 0.5"
    script = f"{changed}; from latentry.cli import main; main()"
    with serving(finished_run, "--no-neighbours", program=("-c", script)) as (_, port):
        silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(20)]
        for connection in silent[:10]:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: local")
        for connection in silent:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
            connection.close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(20):  # one that is used stays open
            connection.request("POST", "/predict", body_of(png_of(Image.new("RGB", (40, 40)))), HEADERS)
            assert connection.getresponse().read()
            time.sleep(0.1)

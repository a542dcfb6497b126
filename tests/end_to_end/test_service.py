"""`latentry serve` as a process: many clients at once, clients that mean ill, and a clean end."""

import collections
import concurrent.futures
import contextlib
import functools
import http.client
import io
import json
import math
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
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
    run: Path, *options: str, program: tuple[str, ...] = ("-m", "latentry")
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process, and its port; it is stopped at the end, if it still runs."""
    command = [sys.executable, *program, "serve", str(run), "--port", "0", *options]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}  # glibc gives back what is freed, so a leak shows
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    usual = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (min(1024, most_files), most_files))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=usual) as process:
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


def seconds_to_answer(port: int, body: bytes) -> float:
    """For ever, where it is refused."""
    started = time.perf_counter()
    answered = ask(port, body)[0] == 200
    return time.perf_counter() - started if answered else math.inf


def latency(port: int, body: bytes) -> float:
    """Seconds that an answer takes at the median of nine."""
    return sorted(seconds_to_answer(port, body) for _ in range(9))[4]


def hold_open(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(sent)
    return connection


HALF = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {HEADERS['content-type']}\r\n".encode()


@pytest.mark.reliability
def test_clients_that_say_nothing_or_little_keep_nobody_waiting(port):
    small = body_of(png_of(Image.new("RGB", (40, 40))))
    before = latency(port, small)
    held = [hold_open(port, b"") for _ in range(1000)]
    held += [hold_open(port, HALF) for _ in range(50)]
    held += [hold_open(port, HALF + b"Content-Length: 1000000\r\n\r\n--") for _ in range(50)]
    started = time.perf_counter()
    while time.perf_counter() - started < 40:
        assert latency(port, small) < 3 * before + 0.1
        for connection in held[1050:]:
            with contextlib.suppress(OSError):
                connection.sendall(b"-")  # a byte every few seconds, for ever
        time.sleep(2)
    for number, connection in enumerate(held):
        connection.settimeout(5)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(4096)
        assert answer == b"" or b" 408 " in answer, f"connection {number} is open still"
        connection.close()


SECONDS_BETWEEN = 0.57
"""Of each of 128 clients: 225 requests a second of 8 images, some four times what two cores answer."""


@pytest.mark.reliability
def test_four_times_as_many_as_it_can_answer_are_answered_or_refused_and_then_it_is_as_before(finished_run):
    small = body_of(*[png_of(Image.new("RGB", (64, 64), "red"))] * 8)
    statuses: collections.Counter[int] = collections.Counter()
    stop = threading.Event()

    def insist(port: int) -> None:
        while not stop.is_set():
            started = time.perf_counter()
            status, _ = ask(port, small)
            statuses[status] += 1
            stop.wait(max(0.0, SECONDS_BETWEEN - (time.perf_counter() - started)))

    with serving(finished_run, "--no-neighbours") as (process, port):
        ask(port, small)
        before = latency(port, small)
        held = []
        with concurrent.futures.ThreadPoolExecutor(4 * NUM_CLIENTS) as pool:
            waiting = [pool.submit(insist, port) for _ in range(4 * NUM_CLIENTS)]
            for _ in range(24):
                time.sleep(5)
                held.append(resident_bytes(port))
            stop.set()
            ended = time.perf_counter()
            while seconds_to_answer(port, small) > 2 * before:
                pass
            assert time.perf_counter() - ended < 5, "it stayed slow"
            for one in waiting:
                one.result()
        assert latency(port, small) < 2 * before
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert set(statuses) <= {200, 429, 503}
    assert statuses[200] > 1000
    assert statuses.total() > 3.5 * statuses[200], "it was not asked for four times as much"
    assert max(held[-6:]) < 1.1 * max(held[4:10])


@pytest.mark.reliability
def test_nothing_that_its_own_reference_allows_makes_it_fail(port, tmp_path):
    checks = "not_a_server_error,content_type_conformance,response_schema_conformance,response_headers_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port}/openapi.json"]
    done = subprocess.run(
        [*command, f"--checks={checks}", "--max-examples=300", "--seed=1", "--phases=examples,coverage,fuzzing"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]


SPY = """
import os, sys

def note(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        print("WROTE", arguments[0], file=sys.stderr, flush=True)

from latentry.deploy import service

genuine = service.Service.answered

async def answered(self, *arguments, **options):
    global watched
    if not watched:
        watched = True
        sys.addaudithook(note)
    return await genuine(self, *arguments, **options)

watched = False
service.Service.answered = answered
from latentry.cli import main

main()
"""


@pytest.mark.reliability
def test_what_clients_send_is_never_written_to_disk_and_no_path_is_told(finished_run, tmp_path):
    spy = tmp_path / "spy.py"
    spy.write_text(SPY)
    large = body_of(*[png_of(pillow_of(np.random.default_rng(0).integers(0, 256, (3, 900, 900), dtype=np.uint8)))] * 10)
    assert len(large) > 20 * 2**20
    with serving(finished_run, program=(str(spy),)) as (process, port):
        told = [json.dumps(ask(port, large, route)) for route in ("/predict", "/reconstruct", "/neighbours?count=2")]
        told += [json.dumps(ask(port, body)) for body in (large[:-9], b"", body_of(b""), body_of(b"no image"))]
        for route in ("/", "/docs", "/openapi.json", "/health", "/nothing", "/../../etc/passwd", "/%2e%2e/etc/passwd"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", route)
            answer = connection.getresponse()
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            told.append(answer.read().decode() + str(answer.headers))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "WROTE" not in process.stderr.read()
    for path in (str(finished_run), str(tmp_path), "site-packages", "latentry/deploy", f"{Path.home()}/"):
        assert not [words for words in told if path in words]

"""How many images a second `latentry serve` answers, how soon, and what plain PyTorch does in its place.

    .venv/bin/python benchmarks/serving.py runs/quick-0

In one run, on one machine that client and server share, one image a request and one view, no reconstruction: requests
as fast as 32 clients send them, 50 requests a second, and one client alone. The plain service is a FastAPI route that
opens the image with Pillow and asks the same network for it, in PyTorch's eager mode; it reads the form with
python-multipart, of the "dev" extra. Before that, the seconds a batch takes each engine: PyTorch in the precision that
the service uses, and ONNX Runtime in fp32 and int8.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from latentry.data import cifar10
from latentry.data.pictures import pillow_of, png_of
from latentry.deploy.export import export
from latentry.deploy.predictor import Predictor

BOUNDARY = "boundary"
NUM_IMAGES = 256
PLAIN = "plain"


def plain_service(run: str, port: int) -> None:
    """What one would write without a queue."""
    import torch
    import uvicorn
    from fastapi import FastAPI, UploadFile

    predictor = Predictor.load(Path(run), views=1)
    names = predictor.config.class_names
    app = FastAPI()

    @app.post("/predict")
    def predict(images: UploadFile) -> dict[str, Any]:
        picture = np.asarray(Image.open(images.file).convert("RGB").resize((32, 32)))
        pixels = torch.from_numpy(picture.transpose(2, 0, 1)[None] / 255).float()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            logits = predictor.network.classifier(predictor.network.encode(pixels)).float()
        return dict(zip(names, torch.softmax(logits, dim=1)[0].tolist(), strict=True))

    uvicorn.run(app, port=port, log_level="error")


@contextlib.contextmanager
def served(command: list[str], port: int) -> Iterator[None]:
    """Runs a service until the end of the block."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            asyncio.run(reached(port))
            yield
        finally:
            process.terminate()


async def reached(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(self) -> "Client":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def ask(self, request: bytes) -> float:
        """Seconds from the first byte sent to the last received.

        Raises:
            RuntimeError: the answer isn't 200.
        """
        started = time.perf_counter()
        self.writer.write(request)
        header = await self.reader.readuntil(b"\r\n\r\n")
        (length,) = [line for line in header.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await self.reader.readexactly(int(length.split(b":")[1]))
        if not header.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{header.splitlines()[0]!r} {body!r}")
        return time.perf_counter() - started


def requests() -> list[bytes]:
    """POSTs of test images of CIFAR-10, one a request."""
    made = []
    for picture in cifar10.load_test_pixels()[:NUM_IMAGES]:
        part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="x.png"\r\n\r\n'.encode()
        body = part + png_of(pillow_of(picture)) + f"\r\n--{BOUNDARY}--\r\n".encode()
        made.append(
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
    return made


async def flood(port: int, num_clients: int, seconds: float) -> tuple[float, list[float]]:
    """Images a second that `num_clients` get answered, each asking again at once, and how long each took."""
    todo, taken = requests(), []

    async def one(number: int) -> None:
        client = await Client(port).connect()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            number += 1
            taken.append(await client.ask(todo[number % len(todo)]))

    started = time.perf_counter()
    await asyncio.gather(*(one(7 * number) for number in range(num_clients)))
    return len(taken) / (time.perf_counter() - started), taken


async def steady(port: int, rate: float, seconds: float) -> list[float]:
    """How long requests took that came at `rate` a second, whether earlier ones were answered or not."""
    todo, idle = requests(), []
    waiting: set[asyncio.Task[float]] = set()

    async def one(request: bytes, due: float) -> float:
        client = idle.pop() if idle else await Client(port).connect()
        await client.ask(request)
        idle.append(client)
        return time.perf_counter() - due

    started = time.perf_counter()
    for number in range(round(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        waiting.add(asyncio.create_task(one(todo[number % len(todo)], due)))
    return await asyncio.gather(*waiting)


def milliseconds(ask: Callable[[], object], least_seconds: float = 2.0) -> float:
    """The median of many calls."""
    ask()
    taken: list[float] = []
    while sum(taken) < least_seconds:
        started = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken))


def engines(run: Path) -> None:
    """Prints what a batch takes each engine."""
    predictor = Predictor.load(run)
    pictures = np.array(cifar10.load_test_pixels()[:64])
    asked: dict[str, Callable[[np.ndarray], object]] = {
        f"PyTorch, {predictor.precision}": lambda batch: predictor.answer(batch, decode=False)
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, int8 in (("fp32", False), ("int8", True)):
            file = Path(folder) / f"{name}.onnx"
            export(run, file, int8=int8)
            session = onnxruntime.InferenceSession(file.read_bytes())
            asked[f"ONNX Runtime, {name}"] = lambda batch, session=session: session.run(
                ["probabilities"], {"images": np.ascontiguousarray(batch.transpose(0, 2, 3, 1))}
            )
    print(f"{'milliseconds of a batch of':<28}{1:>8}{8:>8}{32:>8}{64:>8}")
    for name, ask in asked.items():
        taken = [milliseconds(lambda: ask(pictures[:size])) for size in (1, 8, 32, 64)]  # noqa: B023
        print(f"{name:<28}" + "".join(f"{one:8.2f}" for one in taken), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--as", dest="role", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == PLAIN:
        plain_service(options.run, options.port)
        return
    engines(Path(options.run))
    port = str(options.port)
    commands = {
        "latentry serve": [sys.executable, "-m", "latentry", "serve", options.run, "--port", port, "--views", "1"],
        "plain PyTorch": [sys.executable, __file__, options.run, "--as", PLAIN, "--port", port],
    }
    print(f"\n{'':<18}{'images/s at 32':>16}{'p50':>8}{'p99':>8}{'at 50/s: p50':>16}{'p99':>8}{'alone: p50':>14}   ms")
    for name, command in commands.items():
        with served(command, options.port):
            asyncio.run(flood(options.port, 4, 3.0))
            rate, busy = asyncio.run(flood(options.port, 32, options.seconds))
            calm = asyncio.run(steady(options.port, 50, options.seconds))
            _, alone = asyncio.run(flood(options.port, 1, options.seconds / 4))
        middle, late = 1000 * np.percentile(busy, 50), 1000 * np.percentile(busy, 99)
        calm_middle, calm_late = 1000 * np.percentile(calm, 50), 1000 * np.percentile(calm, 99)
        print(
            f"{name:<18}{rate:16.0f}{middle:8.0f}{late:8.0f}{calm_middle:16.1f}{calm_late:8.1f}"
            f"{1000 * np.median(alone):14.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""The page in a real browser, on real images; left out where there is none (`make browser` brings one)."""

import base64
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import uvicorn

from latentry.data import cifar10
from latentry.data.pictures import pillow_of, png_of
from latentry.deploy.listening import listen
from latentry.deploy.neighbours import neighbours_of
from latentry.deploy.predictor import Predictor
from latentry.deploy.serve import create_app
from latentry.pipeline import train
from latentry.recipe import load_recipe

browsers = pytest.importorskip("playwright.sync_api", reason="`make browser` brings a browser")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="`make browser` brings a browser"),
]
SHORT = {
    "pretrain.max_epochs": 1,
    "classify.max_epochs": 1,
    "pretrain.min_steps_per_epoch": 20,
    "classify.min_steps_per_epoch": 20,
    "classify.batch_size": 64,
}
DROP = """([name, content]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
  const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Predictor, str]]:
    """A predictor of a short run on CIFAR-10, and the address that it is served at."""
    few = dict.fromkeys(cifar10.CLASS_NAMES, 100)
    run = train(load_recipe("quick", SHORT | {"data.limit": few}), tmp_path_factory.mktemp("browser") / "run")
    predictor = Predictor.load(run.folder)
    listening = listen("127.0.0.1", 0)
    app = create_app(predictor, neighbours_of(run, predictor), token="secret")
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield predictor, f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(predictor: tuple[Predictor, str]) -> Iterator[Any]:
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: problems.append(message.text) if "Content Security" in message.text else None
        )
        page.goto(predictor[1])
        yield page
        browser.close()
        assert problems == []


def drop(page: Any, name: str, content: bytes) -> None:
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def test_an_image_is_dropped_and_its_class_read_and_a_text_refused(page, predictor):
    predictor, _ = predictor
    picture = np.array(cifar10.load_test_pixels()[0])
    answer = predictor.answer(picture[None])
    best = predictor.config.class_names[answer.probabilities[0].argmax()]

    drop(page, "photo.png", png_of(pillow_of(picture)))
    page.get_by_label("This service asks for its token").fill("secret")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=best, exact=True).wait_for()
    page.get_by_alt_text("The image, rebuilt from the hidden layer").wait_for()
    bars = [bar.bounding_box()["width"] for bar in page.locator(".bar i").all()]
    assert bars == sorted(bars, reverse=True)
    whole = page.locator(".bar").first.bounding_box()["width"]
    deadline = time.monotonic() + 5
    while abs(page.locator(".bar i").first.bounding_box()["width"] / whole - answer.probabilities.max()) > 0.02:
        assert time.monotonic() < deadline
    assert page.locator("#neighbours img").count() == 9
    usual = "It rebuilds as well" if predictor.usual(answer.errors)[0] else "It rebuilds worse"
    assert page.locator("#familiar").text_content().startswith(usual)
    assert best in page.get_by_role("status").text_content()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    drop(page, "notes.txt", b"hello, this is no image")
    page.get_by_role("alert").filter(has_text="Refused: the image can't be used: it is no image of a format").wait_for()
    assert not page.locator("#result").is_visible()


def test_it_works_from_the_keyboard(page, predictor, tmp_path):
    file = tmp_path / "frog.png"
    file.write_bytes(png_of(pillow_of(np.array(cifar10.load_test_pixels()[4]))))
    page.on("filechooser", lambda chooser: None)  # from now on, not from the key on, which is now and then too late
    page.evaluate("sessionStorage.setItem('token', 'secret')")
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as choosing:
        page.keyboard.press("Enter")
    choosing.value.set_files(file)
    page.locator("#classes li").first.wait_for()
    assert page.locator("#classes li").count() == 5

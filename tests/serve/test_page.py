"""The page in a browser, asking the real server: `python -m client.web`."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from client.draw import PALETTE
from serve import Server
from tests.ports import free_port

pytest.importorskip("gradio", reason="the page needs Gradio: pip install '.[web]'")
web = pytest.importorskip("client.web")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
WAIT = 30_000  # milliseconds
ANSWER = "img[src$='/image.png']"
# Cells of the table that reach beyond what is shown of it.
CUT = """() => {
  const table = [...document.querySelectorAll("table")].find(one => one.innerText.includes("y2"));
  const cells = [...table.querySelectorAll("th, td")].map(cell => [cell, cell.getBoundingClientRect().right]);
  const end = document.querySelector(".message").getBoundingClientRect().right;
  return cells.filter(([cell, right]) => right > end + 1).map(([cell]) => cell.innerText);
}"""

# Numbers of the table that stand on more lines than one.
BROKEN = r"""() => {
  const texts = [...document.querySelectorAll("[role=gridcell] span")];
  const numbers = texts.filter(one => /^[\d.]+%?$/.test(one.innerText));
  const lines = one => { const all = new Range(); all.selectNodeContents(one); return all.getClientRects().length; };
  return [numbers.length, numbers.filter(one => lines(one) > 1).map(one => one.innerText)];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: object) -> Iterator[object]:
    """An empty page in a window of a laptop's width."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})  # type: ignore[attr-defined]
    opened.set_default_timeout(WAIT)
    yield opened
    opened.close()


@contextmanager
def serving(url: str) -> Iterator[str]:
    """The page's address while the command serves it, asking `url`; Ctrl-C ends that without a word."""
    words = [sys.executable, "-m", "client.web", "--port", str(free_port()), "--url", url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            ready = process.stdout.readline()
            assert ready.startswith("ready: ")
            yield ready.split()[1].rstrip(",")
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == ("", "")
            assert process.returncode == 0
        finally:
            process.kill()


def ask(page: Any, words: str, said: str) -> None:
    """Type, press the button and wait until the page says something."""
    page.get_by_label("What to find").fill(words)
    page.get_by_role("button", name="Ask").click()
    page.get_by_text(said).wait_for()


def test_a_person_asks(url: str, page: Any, jpeg: bytes, tmp_path: Path) -> None:
    """Upload, type, see boxes and scores of both, then the attention; nothing comes from anywhere else."""
    (tmp_path / "mine.jpg").write_bytes(jpeg)
    with serving(url) as address:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        ask(page, "", "Choose a picture.")
        page.set_input_files("input[type=file]", tmp_path / "mine.jpg")
        ask(page, "the red circle left of the blue square\n\nsmall star", "Answered in")
        first = page.locator(ANSWER).get_attribute("src")
        pixels = np.asarray(Image.open(io.BytesIO(page.request.get(first).body())).convert("RGB"))
        for colour in PALETTE[:2]:  # of the two boxes
            assert (pixels == ImageColor.getrgb(colour)).all(axis=2).any()
        assert page.evaluate(CUT) == []
        page.get_by_label("Show where").check()
        page.wait_for_function("([answer, old]) => document.querySelector(answer)?.src !== old", arg=[ANSWER, first])
        ask(page, "star " * 51, "51 words; at most 50")
        assert all(place.startswith((address, "data:", "blob:")) for place in asked)


def test_numbers_stay_whole_on_a_telephone(url: str, page: Any, jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(jpeg)
    page.set_viewport_size({"width": 375, "height": 740})
    with serving(url) as address:
        page.goto(address)
        page.set_input_files("input[type=file]", tmp_path / "mine.jpg")
        ask(page, "small star", "Answered in")
        page.locator("[role=gridcell]").get_by_text("small star").wait_for()
        assert page.evaluate(BROKEN) == [6, []]
        assert page.evaluate("document.documentElement.scrollWidth") == 375  # the table scrolls, and not the page


def test_what_goes_wrong(repository: Path, page: Any, jpeg: bytes, tmp_path: Path) -> None:
    """A file that is no picture, a file that is too large, a server that comes late and goes: a sentence for each, and
    the page goes on to work."""
    names = ["mine.jpg", "text.jpg", "large.jpg"]
    for name, data in zip(names, (jpeg, b"no picture", jpeg), strict=True):
        (tmp_path / name).write_bytes(data)
    os.truncate(tmp_path / "large.jpg", 200 * 2**20)
    port = free_port()
    with serving(f"127.0.0.1:{port}") as address:
        page.goto(address)
        page.set_input_files("input[type=file]", tmp_path / "large.jpg")
        page.get_by_text("exceed the maximum allowed size").wait_for()
        page.set_input_files("input[type=file]", tmp_path / "mine.jpg")
        ask(page, "star", f"No server at 127.0.0.1:{port}")
        with Server(repository, grpc_port=port, http_port=0, metrics_port=0):
            # A client looks for a lost server every 2 s at the latest: who asks at once may have to press twice.
            for _ in range(30):
                page.get_by_role("button", name="Ask").click()
                page.wait_for_timeout(500)
                if page.get_by_text("Answered in").is_visible():
                    break
            assert page.get_by_text("Answered in").is_visible()
            page.get_by_label("Remove Image").click()
            page.set_input_files("input[type=file]", tmp_path / "text.jpg")
            ask(page, "star", "none of JPEG, PNG, WEBP, GIF")
        ask(page, "star", f"No server at 127.0.0.1:{port}")


def test_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert web.main(["--port", str(port)]) == 2
    said = f"python -m client.web: cannot serve the page at 127.0.0.1:{port}: give another --port or --host\n"
    assert capsys.readouterr() == ("", said)

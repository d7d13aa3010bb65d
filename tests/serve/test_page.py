"""The page in a browser, asking the real server: `python -m client.web`."""

import io
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from client.draw import PALETTE

pytest.importorskip("gradio", reason="the page needs Gradio: pip install '.[web]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
WAIT = 30_000  # milliseconds
ANSWER = "img[src$='/image.png']"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def serving(url: str) -> tuple[subprocess.Popen[str], str]:
    """The command asking `url`, ready, and the page's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "client.web", "--port", port, "--url", url]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready: ")
    return process, f"http://127.0.0.1:{port}"


def test_a_person_asks(url: str, browser: object, jpeg: bytes, tmp_path: Path) -> None:
    """Upload, type, see boxes and scores of both, then the attention; nothing comes from anywhere else."""
    (tmp_path / "mine.jpg").write_bytes(jpeg)
    process, address = serving(url)
    try:
        page = browser.new_page()  # type: ignore[attr-defined]
        page.set_default_timeout(WAIT)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Choose a picture.").wait_for()
        page.set_input_files("input[type=file]", tmp_path / "mine.jpg")
        page.get_by_label("What to find").fill("the red circle\n\nsmall star")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Answered in").wait_for()
        first = page.locator(ANSWER).get_attribute("src")
        pixels = np.asarray(Image.open(io.BytesIO(page.request.get(first).body())).convert("RGB"))
        for colour in PALETTE[:2]:  # of the two boxes
            assert (pixels == ImageColor.getrgb(colour)).all(axis=2).any()
        page.get_by_label("Show where").check()
        page.wait_for_function("([answer, old]) => document.querySelector(answer)?.src !== old", arg=[ANSWER, first])
        page.get_by_label("What to find").fill("star " * 51)
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("51 words; at most 50").wait_for()
        assert all(place.startswith((address, "data:", "blob:")) for place in asked)
    finally:
        process.terminate()
        process.wait()

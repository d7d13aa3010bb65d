"""The page, asked by requests that no browser would send. What a person sees of it: tests/serve/test_page.py."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_kserve import FakeServer
from PIL import Image

from client import Client

pytest.importorskip("gradio", reason="the page needs Gradio: pip install '.[web]'")
web = pytest.importorskip("client.web")
gradio_client = pytest.importorskip("gradio_client")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture of this machine that nobody uploaded."""
    path = tmp_path / "private" / "secret.png"
    path.parent.mkdir()
    Image.new("RGB", (200, 150), "white").save(path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Gradio keeps what is uploaded."""
    path = tmp_path / "cache"
    path.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(path))
    return path


@contextmanager
def served(server: FakeServer) -> Iterator[str]:
    """The address of the page, which asks the fake server."""
    with Client(server.url) as client:
        blocks = web.page(client)
        _, address, _ = blocks.launch(server_name="127.0.0.1", quiet=True, prevent_thread_lock=True, ssr_mode=False)
        yield address.rstrip("/")
        blocks.close(verbose=False)


def test_pictures_that_were_not_uploaded_are_refused(server: FakeServer, secret: Path, cache: Path) -> None:
    """All in the same words, so that nobody learns which of them are there; also after an example was chosen."""
    (cache / "link.png").symlink_to(secret)
    paths = [secret, "/nowhere.png", "/etc/passwd", cache / "link.png", cache / "../private/secret.png", "a\0b"]
    with served(server) as address:
        visitor = gradio_client.Client(address, verbose=False)
        for _ in range(2):
            for path in paths:
                _, _, said = visitor.predict({"path": str(path)}, "star", False, api_name="/ask")
                assert said == "⚠️ This picture was not uploaded here: choose it anew."
            visitor.predict(0, api_name="/load_example")
        assert not server.asked
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{address}/gradio_api/file={secret}")


def test_uploads_and_examples_are_answered(server: FakeServer, secret: Path, cache: Path) -> None:
    """Nothing of them is left when the page has ended, but the examples."""
    with served(server) as address:
        visitor = gradio_client.Client(address, verbose=False, download_files=False)
        example, _ = visitor.predict(0, api_name="/load_example")
        given = [secret, web.EXAMPLES / "triangles.jpg"]
        for picture in (gradio_client.handle_file(secret), example["value"]):
            _, table, said = visitor.predict(picture, "star\nzebra", False, api_name="/ask")
            assert said.startswith("Answered in")
            assert said.endswith(" ms. ⚠️ The network does not know: zebra.")
            assert table["headers"] == ["expression", "score", "there", "x1", "y1", "x2", "y2"]
            assert table["data"] == [
                ["star", 0.5, "75%", 0.5, 1.0, 20.0, 10.2],
                ["zebra", 0.333, "38%", 1.5, 2.0, 21.0, 11.2],
            ]
        assert [asked.image for asked in server.asked] == [path.read_bytes() for path in given]
        assert list(cache.rglob(secret.name))
    assert {path.name for path in cache.rglob("*.*")} == set(web.QUESTIONS)


@pytest.mark.parametrize("host", ["::1", "", "a..b"])
def test_a_host_that_is_none(capsys: pytest.CaptureFixture[str], host: str) -> None:
    """Gradio itself could not serve the page at an IPv6 address."""
    with pytest.raises(SystemExit, match="2"):
        web.main(["--host", host])
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"--host: expected an IPv4 address or a name that has one, got {host!r}" in err


@pytest.mark.parametrize(("name", "scheme"), [("http_proxy", "http"), ("all_proxy", "socks5")])
def test_a_proxy_in_the_environment_is_passed_by(nobody: str, name: str, scheme: str) -> None:
    """Gradio asks its own page at the start, which no proxy leads to; of SOCKS it knows nothing."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment[name] = f"{scheme}://{nobody}"
    words = [sys.executable, "-m", "client.web", "--port", nobody.split(":")[1]]
    with subprocess.Popen(words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"ready: http://{nobody}")
        process.terminate()

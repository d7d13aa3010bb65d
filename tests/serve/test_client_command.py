"""`python -m client` against the real server."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from client.library import Client

ROOT = Path(__file__).parent.parent.parent
EXPRESSIONS = ["the red circle", "a zebra 🦓"]
UNKNOWN = "python -m client: the network does not know: a, zebra, 🦓\n"


@pytest.fixture
def file(jpeg: bytes, tmp_path: Path) -> Path:
    """The picture in a file."""
    path = tmp_path / "my picture.jpg"
    path.write_bytes(jpeg)
    return path


def command(url: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    arguments = [sys.executable, "-m", "client", "--url", url, "--timeout", "60", *map(str, words)]
    return subprocess.run(arguments, capture_output=True, encoding="utf-8", check=False, timeout=120, cwd=ROOT)


def assert_one_line(done: subprocess.CompletedProcess[str], status: int, *named: str) -> None:
    """Failed with that status, nothing on stdout and one line on stderr that names these."""
    assert (done.returncode, done.stdout) == (status, ""), done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for text in named:
        assert text in done.stderr


def test_table(url: str, client: Client, file: Path) -> None:
    """Without options a table: a head and one row for each expression, with the library's numbers."""
    done = command(url, file, *EXPRESSIONS)
    assert (done.returncode, done.stderr) == (0, UNKNOWN)
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["expression", "score", "there", "x1", "y1", "x2", "y2"]
    for row, answer in zip(rows, client.ground(file, EXPRESSIONS), strict=True):
        assert row.startswith(answer.expression)
        score, there, *box = (float(number.rstrip("%")) for number in row.removeprefix(answer.expression).split())
        assert there == pytest.approx(100 * (answer.presence or 0), abs=0.51)
        assert score == pytest.approx(answer.score, abs=1e-3)
        assert box == pytest.approx(answer.box, abs=0.06)


def test_json(url: str, client: Client, file: Path) -> None:
    """With --json one document with the library's answers, in order."""
    done = command(url, file, *EXPRESSIONS, "--json")
    assert (done.returncode, done.stderr) == (0, UNKNOWN)
    document = json.loads(done.stdout)
    assert document["image"] == str(file)
    for found, answer in zip(document["groundings"], client.ground(file, EXPRESSIONS), strict=True):
        assert found["expression"] == answer.expression
        assert found["box"] == pytest.approx(answer.box, abs=2e-3)
        assert found["score"] == pytest.approx(answer.score, abs=1e-5)


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp"])
def test_save(url: str, file: Path, picture: Image.Image, tmp_path: Path, name: str) -> None:
    """With --save a picture of the asked one's size that opens, and nothing else, is written."""
    before = set(tmp_path.iterdir())
    done = command(url, file, "the red circle", "--save", tmp_path / name)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(tmp_path.iterdir()) - before == {tmp_path / name}
    with Image.open(tmp_path / name) as saved:
        saved.load()
        assert saved.size == picture.size


def test_bad_input(url: str, file: Path, tmp_path: Path) -> None:
    """What the server refuses, and what is no file: one line that names the trouble; exit code 2."""
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    assert_one_line(command(url, text, "star"), 2, "IMAGE", "JPEG")
    assert_one_line(command(url, file, "star", "  "), 2, "expression 2 of 2")
    assert_one_line(command(url, file, "star " * 51), 2, "51 words")
    assert_one_line(command(url, tmp_path / "nowhere.jpg", "star"), 2, "nowhere.jpg")


def test_no_model(url: str, file: Path) -> None:
    """A model that is not served: one line that names it; exit code 1."""
    assert_one_line(command(url, file, "star", "--model", "gin_fp8"), 1, url, "'gin_fp8'")


def test_refusal_saves_nothing(url: str, file: Path, tmp_path: Path) -> None:
    """A refused request writes no picture."""
    before = set(tmp_path.iterdir())
    assert command(url, file, "?", "--save", tmp_path / "out.png").returncode == 2
    assert set(tmp_path.iterdir()) == before


def test_no_server(file: Path) -> None:
    """Where nobody listens: one line that says how to start a server; exit code 1."""
    with socket.socket() as probe:  # bound and not listening: nobody else can take the port meanwhile
        probe.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{probe.getsockname()[1]}"
        assert_one_line(command(url, file, "star"), 1, url, "python -m serve")

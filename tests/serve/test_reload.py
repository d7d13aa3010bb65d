"""`python -m serve --reload`: the newest verified version, without a failed request."""

import errno
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from client.library import Client
from serve import Server
from serve.__main__ import main
from tests.serve.conftest import QUESTION

MODEL = "gin"


@pytest.fixture
def served(repository: Path, tmp_path: Path) -> Iterator[Server]:
    """A server on a repository of its own."""
    shutil.copytree(repository, tmp_path / "triton_repo")
    with Server(tmp_path / "triton_repo", grpc_port=0, http_port=0, metrics_port=0) as server:
        yield server


def reload(server: Server) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "serve", "--reload", "--grpc-port", str(server.grpc_port)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def load(server: Server, jpeg: bytes) -> Iterator[list]:
    """Four clients that ask without a pause; what each call answered or raised."""
    stop, answers = threading.Event(), []

    def run() -> None:
        with Client(f"{server.address}:{server.grpc_port}", timeout=30) as client:
            while not stop.is_set():
                try:
                    answers.append(client.ground(jpeg, QUESTION))
                except Exception as error:
                    answers.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    yield answers
    stop.set()
    for thread in threads:
        thread.join()


def test_reload(served: Server, jpeg: bytes) -> None:
    """A new version is served, under load, without a failed request; one that was tampered with is named and the
    former goes on, also when the model is loaded anew."""
    model = served.repository / MODEL
    with load(served, jpeg) as answers:
        while not answers:
            time.sleep(0.05)
        shutil.copytree(model / "1", model / "2")
        done = reload(served)
        after = len(answers)
        while len(answers) < after + 8:
            time.sleep(0.05)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"{MODEL} version 2\b", done.stdout)
    assert all(answer == answers[0] for answer in answers), [a for a in answers if a != answers[0]][:3]

    shutil.copytree(model / "1", model / "3")
    content = bytearray((model / "3" / "image.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (model / "3" / "image.onnx").write_bytes(content)
    done = reload(served)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert str(model / "3" / "image.onnx") in done.stderr
    assert re.search(rf"{MODEL} version 2\b", done.stdout)
    with Client(f"{served.address}:{served.grpc_port}") as client:
        assert client.ground(jpeg, QUESTION) == answers[0]

    only = served.repository / "gin_onnx" / "1" / "model.onnx"
    with only.open("ab") as file:
        file.write(b"more")
    done = reload(served)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert str(only) in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [(KeyboardInterrupt(), 130, "interrupted"), (OSError(errno.ENOSPC, "No space left"), 1, "No space left")],
)
def test_broken_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, says: str
) -> None:
    """Ctrl-C while the server loads is no success, nor is a full disk; one line says so."""
    monkeypatch.setattr("serve.__main__.reload", Mock(side_effect=error))
    assert main(["--reload"]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_nothing_to_reload() -> None:
    """Where no server runs, one line says so; exit code 1."""
    command = [sys.executable, "-m", "serve", "--reload", "--grpc-port", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "gRPC port 1" in done.stderr

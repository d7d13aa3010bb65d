"""`python -m serve` as its user meets it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serve.conftest import copy_repository

COMMAND = [sys.executable, "-m", "serve", "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]


def refused(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def running(repository: Path, temporary: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it has said that it is ready, and what it said."""
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [*COMMAND, "--repository", repository], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.wait()


def can_connect(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def descendants(pid: int) -> set[int]:
    """Processes that a process started, and theirs."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child} | descendants(child)
    return found


def wait_until_gone(pids: set[int]) -> set[int]:
    """Those that are still there after a while; zombies count as gone."""
    for _ in range(300):
        left = set()
        for pid in pids:
            status = Path(f"/proc/{pid}/stat")
            try:
                if status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    left.add(pid)
            except OSError:
                continue
        if not left:
            return left
        time.sleep(0.1)
    return left


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_nothing(repository: Path, tmp_path: Path, stop: signal.Signals) -> None:
    """Ready is said in one line; Ctrl-C and SIGTERM end every process and remove what was made; exit code 0."""
    with running(repository, tmp_path) as (process, line):
        assert re.match(r"ready: model gin at grpc://127\.0\.0\.1:\d+, http://127\.0\.0\.1:\d+", line)
        started = descendants(process.pid)
        assert len(started) >= 3  # the server and a process for each Python model
        listening = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", line)}
        assert len(listening) == 3
        for port in listening:
            assert can_connect("127.0.0.1", port)
            assert not can_connect("127.0.0.2", port)  # answered only if it listens on every address
        process.send_signal(stop)
        assert process.wait(60) == 0
        assert not wait_until_gone(started)
        assert not list(Path("/dev/shm").glob(f"gin_{process.pid}_*"))
        assert not list(tmp_path.iterdir())


def test_server_ends_with_its_parent(repository: Path, tmp_path: Path) -> None:
    """If the command is killed outright, the server does not live on."""
    with running(repository, tmp_path) as (process, _):
        started = descendants(process.pid)
        process.kill()
        assert not wait_until_gone(started)


def test_port_in_use(repository: Path) -> None:
    """A taken port is named in one line; exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = refused("--repository", repository, "--grpc-port", port)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f":{port}" in done.stderr


def test_repository_that_cannot_be_served(tmp_path: Path) -> None:
    """No folder, and one without exported files: one line that says what to do; exit code 2."""
    done = refused("--repository", tmp_path / "nowhere")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    done = refused("--repository", copy_repository(tmp_path / "triton_repo"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "python -m export.onnx" in done.stderr


def test_damaged_file(repository: Path, tmp_path: Path) -> None:
    """A file that is no ONNX network: one line with the cause; exit code 1."""
    damaged = tmp_path / "triton_repo"
    shutil.copytree(repository, damaged)
    (damaged / "gin_onnx" / "1" / "model.onnx").write_bytes(b"not a network")
    done = refused("--repository", damaged)
    assert done.returncode == 1
    assert "gin_onnx" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_bad_arguments() -> None:
    """An impossible port is refused; exit code 2."""
    done = refused("--http-port", 70_000)
    assert done.returncode == 2
    assert "70000" in done.stderr

"""`python -m serve` as its user meets it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.serve.conftest import copy_repository

PORTS = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0", "--health-port", "0"]
COMMAND = [sys.executable, "-m", "serve", *PORTS]


def refused(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | environment
    )


@contextmanager
def running(
    repository: Path, temporary: Path, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it has said that it is ready, and what it said."""
    process = subprocess.Popen(
        [*COMMAND, "--repository", repository, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)} | environment,
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
        with suppress(OSError):  # a thread that has ended meanwhile
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


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_leaves_nothing(repository: Path, tmp_path: Path, stop: signal.Signals) -> None:
    """Ready is said in one line; Ctrl-C, kill or a closed terminal ends all processes and all files; exit code 0."""
    with running(repository, tmp_path) as (process, line):
        assert re.match(r"ready: model gin at grpc://127\.0\.0\.1:\d+, http://127\.0\.0\.1:\d+", line)
        started = descendants(process.pid)
        assert len(started) >= 3  # the server and a process for each Python model
        listening = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", line)}
        assert len(listening) == 4
        for port in listening:
            assert can_connect("127.0.0.1", port)
            assert not can_connect("127.0.0.2", port)  # answered only if it listens on every address
        process.send_signal(stop)
        assert process.wait(60) == 0
        assert not wait_until_gone(started)
        assert not list(Path("/dev/shm").glob(f"gin_{process.pid}_*"))
        assert not list(tmp_path.iterdir())


def test_impatient_stopping(repository: Path, tmp_path: Path) -> None:
    """A second Ctrl-C does not keep the first from cleaning up."""
    with running(repository, tmp_path) as (process, _):
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # in the middle of stopping
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not wait_until_gone(started)
        assert not list(tmp_path.iterdir())


def test_server_ends_with_its_parent(repository: Path, tmp_path: Path) -> None:
    """If the command is killed outright, the server does not live on."""
    with running(repository, tmp_path) as (process, _):
        started = descendants(process.pid)
        process.kill()
        assert not wait_until_gone(started)


def test_any_folder(repository: Path, tmp_path: Path) -> None:
    """A repository's path may hold what a shell takes for an instruction."""
    folder = tmp_path / "my models; touch $(id), 'ä"
    shutil.copytree(repository, folder)
    with running(folder, tmp_path / "..") as (_, line):
        assert line.startswith("ready: ")


def test_host_name_and_proxy(repository: Path, tmp_path: Path) -> None:
    """A host given by name is listened on; a proxy for the world outside is not asked about it."""
    with running(repository, tmp_path, "--host", "localhost", http_proxy="http://127.0.0.1:9") as (_, line):
        assert re.match(r"ready: model gin at grpc://127\.0\.0\.1:\d+, http://127\.0\.0\.1:\d+", line)


@pytest.mark.parametrize("host", ["", "nobody.invalid", "a..b", "192.0.2.1", "::1"])
def test_impossible_host(repository: Path, host: str) -> None:
    """A host that is no IPv4 address of this machine is named in one line; exit code 2."""
    done = refused("--repository", repository, "--insecure", "--host", host)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "cannot listen on" in done.stderr
    assert host in done.stderr


@pytest.mark.parametrize("other", ["--http-port", "--health-port"])
def test_one_port_for_two(repository: Path, other: str) -> None:
    """The same port given twice is named in one line; exit code 2."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = refused("--repository", repository, "--grpc-port", port, other, port)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f":{port}" in done.stderr


def test_temporary_folder_of_odd_name(repository: Path, tmp_path: Path) -> None:
    """Where Triton cannot work, one line says so at once; exit code 1."""
    folder = tmp_path / "two words"
    folder.mkdir()
    done = refused("--repository", repository, TMPDIR=str(folder))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "TMPDIR" in done.stderr
    assert not list(folder.iterdir())


@pytest.mark.parametrize("option", ["--grpc-port", "--health-port"])
def test_port_in_use(repository: Path, option: str) -> None:
    """A taken port is named in one line, with its option; exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = refused("--repository", repository, option, port)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f":{port} ({option}): Address already in use; another server runs there already" in done.stderr


def test_repository_that_cannot_be_served(tmp_path: Path) -> None:
    """No folder, and one without exported files: one line that says what to do; exit code 2."""
    done = refused("--repository", tmp_path / "nowhere")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    done = refused("--repository", copy_repository(tmp_path / "triton_repo"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "python -m export.onnx" in done.stderr


@pytest.mark.parametrize("file", ["image.onnx", "vocabulary.json"])
def test_tampered_repository(repository: Path, tmp_path: Path, file: str) -> None:
    """A file that is not the one that was exported: one line names its version and nothing is opened; exit code 2."""
    damaged = tmp_path / "triton_repo"
    shutil.copytree(repository, damaged)
    path = damaged / "gin" / "1" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = refused("--repository", damaged)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert str(path.parent) in done.stderr


def test_repository_without_proof(repository: Path, tmp_path: Path) -> None:
    """A network without a manifest is not served."""
    shutil.copytree(repository, tmp_path / "triton_repo")
    (tmp_path / "triton_repo" / "gin" / "1" / "manifest.json").unlink()
    done = refused("--repository", tmp_path / "triton_repo")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "gin/1 has no manifest.json" in done.stderr


DAMAGE = {  # file, what to replace in it, by what, what the message must name
    "no configuration": ("gin_onnx/config.pbtxt", b"max_batch_size", b"max_batch", "gin_onnx/config.pbtxt"),
    "other name": ("gin_onnx/config.pbtxt", b'"lengths"', b'"widths"', "widths"),
    "other type": ("gin_onnx/config.pbtxt", b"TYPE_UINT8", b"TYPE_INT8", "tensor(uint8)"),
    "other rank": ("gin_onnx/config.pbtxt", b"[ -1, 64, 64, 3 ]", b"[ -1, 64, 3 ]", "[-1, 64, 3]"),
    "any size": ("gin_onnx/config.pbtxt", b"[ -1, 64, 64, 3 ]", b"[ -1, -1, -1, 3 ]", "[-1, -1, -1, 3]"),
    "no number": (
        "gin/config.pbtxt",
        b'"batch_expressions" value { string_value: "8" }',
        b'"batch_expressions" value { string_value: "eight" }',
        "batch_expressions 'eight'; it must be a whole number of 1 or more",
    ),
    "other size": ("gin_onnx/config.pbtxt", b"[ -1, 4 ]", b"[ -1, 5 ]", "[-1, 5]"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_repository(repository: Path, tmp_path: Path, name: str) -> None:
    """A file that cannot be served: one line with the cause; exit code 1."""
    file, old, new, named = DAMAGE[name]
    damaged = tmp_path / "triton_repo"
    shutil.copytree(repository, damaged)
    content = (damaged / file).read_bytes()
    assert old in content
    (damaged / file).write_bytes(content.replace(old, new))
    done = refused("--repository", damaged)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert named in done.stderr
    assert str(damaged) in done.stderr  # not the folder that the server works in


def test_failure_as_json(tmp_path: Path) -> None:
    """With --json-log the reason for not starting is an object too."""
    done = refused("--repository", tmp_path / "nowhere", "--json-log")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    facts = json.loads(line)
    assert (facts["level"], facts["from"]) == ("fatal", "serve")
    assert str(tmp_path / "nowhere") in facts["message"]


def test_bad_arguments() -> None:
    """An impossible port is refused; exit code 2."""
    done = refused("--http-port", 70_000)
    assert done.returncode == 2
    assert "70000" in done.stderr


def test_help() -> None:
    """The help names every option; exit code 0."""
    done = refused("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--repository", "--host", "--grpc-port", "--http-port", "--metrics-port", "--verbose", "--reload"):
        assert option in done.stdout

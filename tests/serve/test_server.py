"""`serve.Server` as Python code meets it."""

import ctypes
import errno
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from export.graphs import INPUTS
from serve import Server, ServerError
from serve.log import Log
from serve.processes import living_children
from serve.server import PortInUse
from serve.triton import MALLOC, environment
from serve.triton_log import TritonLog

PR_SET_CHILD_SUBREAPER = 36  # from linux/prctl.h


def refuse_in_the_network(url: str) -> None:
    """Ask the network about an image that was not sent: an error for the log that has nothing to do with an end."""
    arrays = {
        "images": np.zeros((1, 64, 64, 3), np.uint8),
        "expression_ids": np.ones((1, 2), np.int64),
        "lengths": np.array([2]),
        "image_index": np.array([5]),  # of one image
        "image_sizes": np.array([[90, 120]]),
    }
    inputs = []
    for name in INPUTS:
        kind = "UINT8" if name == "images" else "INT64"
        inputs.append(triton.InferInput(name, list(arrays[name].shape), kind).set_data_from_numpy(arrays[name]))
    with triton.InferenceServerClient(url) as connection, pytest.raises(InferenceServerException):
        connection.infer("gin_onnx", inputs, client_timeout=60)


@dataclass(frozen=True)
class Death:
    """What was seen of a server that was killed: the error, what it had made, and what was left after `stop`."""

    message: str
    made: set[Path]
    left: set[Path]


@pytest.fixture(scope="module")
def death(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Death:
    """A server that answered a bad request with an error of its own, went on, and was killed later."""
    folder = tmp_path_factory.mktemp("death")

    def traces() -> set[Path]:
        return {*folder.iterdir(), *Path("/dev/shm").glob(f"gin_{os.getpid()}_*")}

    before = traces()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder))
        with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
            made = traces() - before
            refuse_in_the_network(f"{server.address}:{server.grpc_port}")
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(ServerError) as caught:
                server.wait()
    return Death(str(caught.value), made, {path for path in made if path.exists()})


def test_death_is_noticed(death: Death) -> None:
    """A server that is killed makes `wait` raise, in one line, and what it had made is removed."""
    assert "died" in death.message
    assert len(death.message.splitlines()) == 1
    assert len(death.made) > 1
    assert not death.left


def test_death_has_its_own_cause(death: Death) -> None:
    """An error from long before is not named as the cause of death."""
    assert "Traceback" not in death.message
    assert "_respond" not in death.message
    assert "SIGKILL" in death.message


def test_cause_that_is_not_in_the_log(repository: Path) -> None:
    """Of a server that wrote no error it is said how it ended, if it has."""
    server = Server(repository, grpc_port=0, http_port=0, metrics_port=0)
    with subprocess.Popen(["sleep", "60"], text=True) as process:
        server._process = process
        assert server._cause() == "`--verbose` shows its log"
        process.kill()
        process.wait()
        assert server._cause() == "SIGKILL; `--verbose` shows its log"


def test_cause_in_the_words_of_grpc() -> None:
    """Its lines have other spaces than Triton's own."""
    said = TritonLog(Log(), verbose=False)
    said.lines.append("E1127 18:45:48.434415157   26601 chttp2_server.cc:1060]       UNKNOWN:No address added")
    assert said.first_error() == "UNKNOWN:No address added"


def test_last_words_of_a_process_that_aborts(repository: Path) -> None:
    """They are in nobody's log, and say why."""
    server = Server(repository, grpc_port=0, http_port=0, metrics_port=0)
    server._said.lines += [
        "Error: Failed to initialize NVML",
        "I1127 18:45:48.434415 2660 model.cc:10] loading",
        "terminate called after throwing an instance of 'std::system_error'",
        "  what():  Resource temporarily unavailable",
    ]
    with subprocess.Popen(["sh", "-c", "kill -ABRT $$"], text=True) as server._process:
        pass
    assert server._cause() == (
        "SIGABRT; terminate called after throwing an instance of 'std::system_error' what(): Resource temporarily "
        "unavailable; `--verbose` shows its log"
    )


@pytest.mark.parametrize("crashes", [1, 2])
def test_crash_at_the_start(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], crashes: int) -> None:
    """Triton is started once more, and a second crash is reported."""
    server = Server(repository, grpc_port=0, http_port=0, metrics_port=0)
    count, crashing = tmp_path / "count", tmp_path / "tritonserver"
    count.touch()
    crashing.write_text(
        f'#!/bin/sh\n[ $(wc -l < {count}) -ge {crashes} ] && exec {server.program} "$@"\n'
        f"echo once more >> {count}; echo 'terminate called' >&2; kill -ABRT $$\n"
    )
    crashing.chmod(0o755)
    server.program = crashing
    reason = "the server did not start: SIGABRT; terminate called; `--verbose` shows its log"
    if crashes == 1:
        with server:
            assert f"{reason}; starting it again" in capsys.readouterr().err
    else:
        with pytest.raises(ServerError) as death:
            server.start()
        assert str(death.value) == reason
        assert server._workplace is None


def test_free_ports_differ(server: Server) -> None:
    """Ports of 0 become three different ports that are listened on."""
    ports = {server.grpc_port, server.http_port, server.metrics_port}
    assert len(ports) == 3
    for port in ports:
        assert port < 32_768  # where outgoing connections do not take it before Triton does
        with socket.create_connection((server.address, port), timeout=10):
            pass


def test_second_server_on_the_same_port(server: Server, repository: Path) -> None:
    """A port that a running server holds is refused before anything is started."""
    with pytest.raises(PortInUse, match=f":{server.http_port}"):
        Server(repository, grpc_port=0, http_port=server.http_port, metrics_port=0)


def test_stopping_twice(repository: Path) -> None:
    """A server that never ran can be stopped, more than once."""
    idle = Server(repository, grpc_port=0, http_port=0, metrics_port=0)
    idle.stop()
    idle.stop()


def test_orphans_are_buried(repository: Path) -> None:
    """A process that gets orphans, as the first of a container does, keeps none of a killed server's as a zombie."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as running:
            models = living_children(running.pid)
            os.kill(running.pid, signal.SIGKILL)
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)
    assert models
    assert [pid for pid in models if Path(f"/proc/{pid}").exists()] == []


def test_starting_forks_nothing(repository: Path) -> None:
    """No code runs between fork and exec, which what a caller uses beside it, such as gRPC, may not outlive."""
    forks: list[int] = []
    os.register_at_fork(before=lambda: forks.append(1))
    with Server(repository, grpc_port=0, http_port=0, metrics_port=0):
        assert not forks


def test_what_ends_the_server_is_missing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and nothing is left."""
    monkeypatch.setattr("serve.server.END_WITH_PARENT", ("no-such-program",))
    server = Server(repository, grpc_port=0, http_port=0, metrics_port=0)
    with pytest.raises(ServerError, match="no-such-program is not installed; it is part of util-linux"):
        server.start()
    assert server._workplace is None


def test_stopping_blindly(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose processes cannot be looked at is stopped too."""
    look = Mock(side_effect=OSError(errno.EMFILE, "Too many open files"))
    monkeypatch.setattr("serve.server.model_processes", look)
    server = Server(repository, grpc_port=0, http_port=0, metrics_port=0)
    words = ["sh", "-c", "trap '' TERM; echo ready; exec sleep 600"]
    server._process = process = subprocess.Popen(words, text=True, start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    server.stop()
    assert process.returncode == -signal.SIGKILL
    look.assert_called()


@pytest.mark.parametrize("step", ["os.replace", "shutil.copyfile"])
def test_full_disk(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A server that finds no room for its folder says so in one line, and leaves none."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(step, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(ServerError, match=r"^Triton has no folder .*No space left on device.* set TMPDIR"):
        Server(repository, grpc_port=0, http_port=0, metrics_port=0).start()
    assert not list(tmp_path.iterdir())


def test_freed_memory_is_given_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and its models' processes run with the allocator's setting, unless the user has chosen another."""
    [(name, value)] = MALLOC.items()
    for process in (server.pid, *living_children(server.pid)):
        assert f"{name}={value}" in Path(f"/proc/{process}/environ").read_text().split("\0")
    monkeypatch.setenv(name, "1048576")
    assert environment()[name] == "1048576"

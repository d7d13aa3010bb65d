"""The health endpoint: what it says, and that it bears what probes do."""

import socket
import struct
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing, suppress

import pytest

from serve.health import CONNECTIONS, Endpoint, Health


def status(port: int, path: str) -> tuple[int, str]:
    """Of an answer, with its text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_probe_that_hangs_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written, and the next is answered."""
    with closing(Endpoint(Health(), "127.0.0.1", 0)) as endpoint:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", endpoint.port)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell
                probe.sendall(b"GET /rea")
        assert status(endpoint.port, "/live") == (200, "ok\n")
    assert capsys.readouterr().err == ""


def test_connections_that_say_nothing() -> None:
    """Only so many take file descriptors of the supervisor; when they are gone, the next is answered."""
    with closing(Endpoint(Health(), "127.0.0.1", 0)) as endpoint:
        with ExitStack() as opened:
            probes = [
                opened.enter_context(socket.create_connection(("127.0.0.1", endpoint.port), timeout=10))
                for _ in range(CONNECTIONS + 1)
            ]
            assert probes[-1].recv(1) == b""  # before the first, which is older, has been idle for too long
            probes[0].setblocking(False)
            with pytest.raises(BlockingIOError):
                probes[0].recv(1)
        answer = None
        for _ in range(100):
            with suppress(OSError):
                answer = status(endpoint.port, "/live")
                break
            time.sleep(0.1)
        assert answer == (200, "ok\n")


def test_ready() -> None:
    """Only after an answer, not after a failure, and no more from when it stops."""
    health = Health()
    with closing(Endpoint(health, "127.0.0.1", 0)) as endpoint:
        assert status(endpoint.port, "/ready") == (503, "the server has not started yet\n")
        health.answered(0.01)
        assert status(endpoint.port, "/ready") == (200, "ok\n")
        health.failed("no answer")
        assert status(endpoint.port, "/ready") == (503, "no answer\n")
        health.overloaded()
        assert status(endpoint.port, "/ready") == (200, "ok\n")
        health.stopping()
        assert status(endpoint.port, "/ready") == (503, "the server is stopping\n")

"""The health endpoint: what it says, and that it bears what probes do."""

import socket
import struct
import urllib.error
import urllib.request
from contextlib import closing

import pytest

from serve.health import Endpoint, Health


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

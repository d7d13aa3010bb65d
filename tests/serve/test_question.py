"""The health question: whatever comes back in an answer's place is told in one line."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serve import models
from serve.models import loaded_versions
from serve.probe import main as probe
from serve.question import NoRightAnswer, Silent, ask


@pytest.fixture(params=["<html>", "[]", "null", '{"outputs": []}', "cut off", "no HTTP"])
def stranger(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of something that answers every request with success, but is no Triton."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if request.param == "no HTTP":
                self.wfile.write(b"220 mail ready\r\n")
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(request.param) + 9 * (request.param == "cut off")))
            self.end_headers()
            self.wfile.write(request.param.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_strangers(stranger: int, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the supervisor nor the probe ends in an exception of a parser's."""
    url = f"http://127.0.0.1:{stranger}"
    with pytest.raises(NoRightAnswer):
        ask(url, 10)
    kind = request.node.callspec.params["stranger"]
    if kind != "[]":  # no model is loaded there
        with pytest.raises(NoRightAnswer):
            loaded_versions(url, {})
    if kind in ("cut off", "no HTTP"):
        assert probe(["--health-port", str(stranger)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_probe_of_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """As with any other host that is not there."""
    assert probe(["--host", "a..b"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_unloading_behind_a_load_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up sooner than a load is: the server must be started again."""
    assert models.UNLOADING < models.LOADING
    monkeypatch.setattr(models, "UNLOADING", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Silent, match=r"within 0\.1 s"):
        models.unload(f"http://127.0.0.1:{silent.getsockname()[1]}", "gin", {})

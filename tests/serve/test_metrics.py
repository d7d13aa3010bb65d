"""What is watched exists: the metrics of dashboard, scraping and autoscaling, logs and traces."""

import contextlib
import io
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from client.errors import Refused
from client.library import Client
from serve import Server
from serve.health import Health
from serve.log import Log, collapse
from serve.question import DIRECT
from serve.reload import reload
from tests.serve.conftest import QUESTION

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def test_metrics_exist(server: Server, client: Client, jpeg: bytes) -> None:
    """Each metric that deploy/ and the documents name is one that a running server has; GPU ones need a GPU."""
    client.ground(jpeg, QUESTION)
    with DIRECT.open(server.metrics_url, timeout=10) as response:
        there = set(re.findall(r"^(\w+)", response.read().decode() + Health().metrics(), re.MULTILINE))
    dashboard = json.loads((DEPLOY / "grafana" / "gin.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    texts = [*queries, (DEPLOY / "kubernetes.yaml").read_text(), (DEPLOY.parent / "docs" / "operating.md").read_text()]
    named = set(re.findall(r"\b(?:nv|gin)_(?!grpc|prepare|onnx|torchscript)[a-z_]+\b", " ".join(texts)))
    assert len(named) > 10
    assert {name for name in named - there if not name.startswith("nv_gpu_")} == set()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def counted(server: Server) -> dict[str, float]:
    """What it says of `gin`'s requests, by outcome, and of their time."""
    with DIRECT.open(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    found = re.findall(r'^gin_request_count\{.*outcome="(\w+)".*\} (\S+)$', text, re.MULTILINE)
    found += re.findall(r"^gin_(request|preparation|waiting|image)_duration_us\{.*\} (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_outcomes(server: Server, client: Client, jpeg: bytes) -> None:
    """What was answered and what was refused are counted apart, and an answer's time holds that of its parts."""
    time.sleep(1)  # the server tells twice a second
    before = counted(server)
    for _ in range(3):
        client.ground(jpeg + secrets.token_bytes(4), QUESTION)
    for _ in range(2):
        with pytest.raises(Refused):
            client.ground(b"no picture", QUESTION)
    deadline = time.monotonic() + 30
    while (after := counted(server))["invalid"] < before["invalid"] + 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    more = {name: after[name] - before[name] for name in after}
    assert (more["answered"], more["invalid"], more["refused"], more["failed"]) == (3, 2, 0, 0)
    assert 0 < more["preparation"] < more["request"]
    assert more["waiting"] > 0
    assert 0 < more["image"] < more["request"] - more["preparation"] - more["waiting"]


def test_callers_who_leave_while_they_wait_are_counted(server: Server, jpeg: bytes) -> None:
    """Of those who had waited for a while; nothing is done for them."""
    expressions = np.array([f"{QUESTION[0]} {number}".encode() for number in range(64)], dtype=np.object_)
    time.sleep(1)  # the server tells twice a second
    before = counted(server)["cancelled"]

    def ask(connection: triton.InferenceServerClient, number: int) -> object:
        image = np.array([jpeg + bytes([number])], dtype=np.object_)
        inputs = [
            triton.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array)
            for name, array in (("IMAGE", image), ("EXPRESSION", expressions))
        ]
        return connection.async_infer("gin", inputs, lambda result, error: None)

    with triton.InferenceServerClient(f"{server.address}:{server.grpc_port}") as connection:
        waiting = [ask(connection, number) for number in range(60)]
        time.sleep(0.2)
        for call in waiting[10:]:
            call.cancel()
        deadline = time.monotonic() + 60
        while counted(server)["cancelled"] == before and time.monotonic() < deadline:
            time.sleep(0.1)
    assert counted(server)["cancelled"] > before


def test_each_process_counts_for_itself(repository: Path, tmp_path: Path) -> None:
    """Of several processes of `gin`, as there are on several GPUs, none says over another's what it keeps."""
    several = shutil.copytree(repository, tmp_path / "triton_repo")
    shutil.rmtree(several / "gin_onnx")
    path = several / "gin" / "config.pbtxt"
    path.write_text(path.read_text().replace("count: 1", "count: 2"))
    with Server(several, grpc_port=0, http_port=0, metrics_port=0) as server:
        time.sleep(1)  # the server tells twice a second
        with DIRECT.open(server.metrics_url, timeout=10) as response:
            text = response.read().decode()
    assert len(re.findall(r"^gin_cache_bytes\{", text, re.MULTILINE)) == 2


def test_a_version_that_is_gone_keeps_nothing(repository: Path, jpeg: bytes, tmp_path: Path) -> None:
    """What it said of its memory would stay on the server's page for ever."""
    model = shutil.copytree(repository, tmp_path / "triton_repo") / "gin"

    def kept() -> dict[str, float]:
        with DIRECT.open(server.metrics_url, timeout=10) as response:
            text = response.read().decode()
        found = re.findall(r'^gin_cache_bytes\{.*version="(\d)".*\} (\S+)$', text, re.MULTILINE)
        return {version: float(size) for version, size in found}

    with Server(model.parent, grpc_port=0, http_port=0, metrics_port=0) as server:
        with Client(f"{server.address}:{server.grpc_port}") as client:
            client.ground(jpeg, QUESTION)
        time.sleep(1)  # the server tells twice a second
        assert kept()["1"] > 0
        shutil.copytree(model / "1", model / "2")
        reload(server.grpc_port)
        deadline = time.monotonic() + 30
        while kept()["1"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert kept()["1"] == 0


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OpenTelemetry collector's address, and what it was sent."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/v1/traces", received
        http.shutdown()


def test_traces_and_json_log(
    repository: Path, jpeg: bytes, collector: tuple[str, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Traces of a request arrive at the collector; the log's lines are JSON objects, with the request's id."""
    url, received = collector
    log = Log(as_json=True)
    with Server(repository, "127.0.0.1", 0, 0, 0, True, trace_url=url, log=log) as server:
        with Client(f"{server.address}:{server.grpc_port}") as client:
            client.ground(jpeg, QUESTION)
        with triton.InferenceServerClient(f"{server.address}:{server.grpc_port}") as connection:
            image = triton.InferInput("IMAGE", [1], "INT32")
            image.set_data_from_numpy(np.zeros(1, np.int32))
            with pytest.raises(InferenceServerException):
                connection.infer("gin", [image], request_id="seven")
        deadline = time.monotonic() + 30
        while b'"gin"' not in b"".join(received) and time.monotonic() < deadline:
            time.sleep(0.1)
        log.event("info", "done", model="gin")
    assert b'"gin"' in b"".join(received)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"time", "level", "from", "message"} <= set.intersection(*map(set, lines))
    assert {line["from"] for line in lines} == {"serve", "triton"}
    assert any(line.get("model") == "gin" for line in lines)


def test_request_ids() -> None:
    """Triton's line about a request becomes an object that carries the request's id."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        Log(as_json=True).triton('E1125 14:28:50.244855 6630 ensemble.cc:70] "[request id: seven] no \\"box\\""')
        Log(as_json=True).triton("no such format")
    first, second = map(json.loads, error.getvalue().splitlines())
    assert (first["request_id"], first["level"], first["source"]) == ("seven", "error", "ensemble.cc:70")
    assert first["message"] == '[request id: seven] no "box"'
    assert (second["level"], second["message"]) == ("info", "no such format")


def test_line_that_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown once a minute, with how often it came; what comes between is shown."""
    clock = iter(range(0, 1_000, 25))  # seconds, looked at for every line that is shown or repeated
    monkeypatch.setattr("serve.log.time", Mock(monotonic=lambda: next(clock)))
    lines = ["accept failed"] * 5 + ["other", "accept failed"]
    again = "the line before came {} more times"
    assert list(collapse(lines)) == [
        *("accept failed", again.format(2), "accept failed", again.format(1), "other", "accept failed")
    ]


def test_a_log_that_nobody_reads() -> None:
    """What cannot be written is lost, and nothing else happens: the reader has left, the shell has closed stderr."""

    class Left(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    for stream in (Left(), None):
        with contextlib.redirect_stderr(stream):
            Log().event("info", "lost")
            Log(as_json=True).triton("lost")

"""Which error each failure becomes, what is asked again, and when a call ends."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from fake_http import running_http
from fake_kserve import CODE, FakeServer, answer, answering, box_of, failing, silence
from ways import Way

from client import Busy, Client, GroundingError, Refused, ServerFailed, TimedOut, Unreachable

WRAPPED = (
    "in ensemble 'gin', Failed to process the request(s) for model instance 'prepare_0_0', message: "
    "TritonModelException: EXPRESSION 2 is empty\n\nAt:\n  /srv/model.py(12): execute\n"
)
DEAD_STUB = failing(CODE.INTERNAL, "in ensemble 'gin', Stub process 'prepare_0_0' is not healthy.")


def test_a_message_over_the_limit_is_refused(way: Way) -> None:
    with (
        way.connect(way.server.url) as client,
        pytest.raises(Refused, match=r"too large to send: 64\.0 MiB of at most 64"),
    ):
        client.ground(bytes(64 * 2**20), "a")
    assert not way.server.asked


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (CODE.INVALID_ARGUMENT, Refused),
        (CODE.RESOURCE_EXHAUSTED, Refused),
        (CODE.UNAVAILABLE, Busy),
        (CODE.DEADLINE_EXCEEDED, TimedOut),
        (CODE.NOT_FOUND, ServerFailed),
        (CODE.INTERNAL, ServerFailed),
        (CODE.UNKNOWN, ServerFailed),
        (CODE.UNIMPLEMENTED, ServerFailed),
        (CODE.CANCELLED, Busy),
    ],
)
def test_each_status_becomes_its_error(way: Way, code: object, error: type[GroundingError]) -> None:
    way.server.script = [failing(code, "the cause") for _ in range(3)]
    with way.connect(way.server.url) as client, pytest.raises(error) as caught:
        client.ground(b"x", "a")
    assert ("the cause" in str(caught.value)) == (error is not TimedOut)


@pytest.mark.parametrize(
    "wrapped",
    [
        "EXPRESSION 2 is empty",
        "in ensemble 'gin', EXPRESSION 2 is empty",
        WRAPPED,
    ],
)
def test_the_servers_cause_is_shown_without_its_wrapping(way: Way, wrapped: str) -> None:
    way.server.script = [failing(CODE.INVALID_ARGUMENT, wrapped)]
    with way.connect(way.server.url) as client, pytest.raises(Refused) as caught:
        client.ground(b"x", "a")
    assert str(caught.value) == "EXPRESSION 2 is empty"


def test_a_model_of_another_kind_is_named(way: Way) -> None:
    why = "unexpected inference output 'BOX' for model 'gin_onnx'"
    way.server.script = [failing(CODE.INVALID_ARGUMENT, why)]
    with way.connect(way.server.url) as client, pytest.raises(ServerFailed, match="takes no pictures") as caught:
        client.ground(b"x", "a")
    assert why in str(caught.value)


@pytest.mark.parametrize("size", [2**10, 255 * 2**10, 257 * 2**10, 4 * 2**20, 32 * 2**20])
def test_two_unavailable_answers_are_hidden_whatever_the_size(way: Way, size: int) -> None:
    way.server.script = [failing(CODE.UNAVAILABLE, "starting")] * 2
    data = os.urandom(size)
    with way.connect(way.server.url, timeout=60) as client:
        assert client.ground(data, "a")[0].box == box_of(0)
    assert [asked.image == data for asked in way.server.asked] == [True] * 3


def test_refusals_are_asked_once(way: Way) -> None:
    way.server.script = [failing(CODE.INVALID_ARGUMENT, "no"), failing(CODE.INTERNAL, "broken")]
    with way.connect(way.server.url) as client:
        for tries in (1, 2):
            with pytest.raises(GroundingError):
                client.ground(b"x", "a")
            assert len(way.server.asked) == tries


def asked_again(way: Way, failure: Any, error: type[GroundingError], why: str) -> None:
    """A call that meets it twice is answered; one that meets it three times tells of it."""
    way.server.script = [failure] * 2
    with way.connect(way.server.url) as client:
        assert client.ground(b"x", "a")[0].box == box_of(0)
    way.server.script = [failure] * 3
    with way.connect(way.server.url) as client, pytest.raises(error, match=why):
        client.ground(b"x", "a")


def test_the_dead_process_of_one_replica_is_asked_around(way: Way) -> None:
    asked_again(way, DEAD_STUB, ServerFailed, "is not healthy")


@pytest.mark.parametrize(
    "going",
    [
        failing(CODE.NOT_FOUND, "Request for unknown model: 'gin' has no available versions"),
        failing(CODE.CANCELLED, "CANCELLED"),
    ],
    ids=["unknown", "cancelled"],
)
def test_a_server_that_is_going_away_is_busy(way: Way, going: Any) -> None:
    """What Triton says of its models, and of its last calls, while it ends."""
    asked_again(way, going, Busy, "going away")


@pytest.mark.parametrize("way", ["grpc", "grpc, async"], indirect=True)
@pytest.mark.parametrize("code", [CODE.INTERNAL, CODE.UNKNOWN])
def test_an_answer_cut_off_half_way_is_asked_for_again(way: Way, code: CODE) -> None:
    """What gRPC says when the server behind a balancer ends while its answer is under way."""
    cut = failing(code, "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))")
    asked_again(way, cut, Unreachable, "connection .* broke")


def test_retries_stop_when_everything_fails(way: Way) -> None:
    calls = 40
    way.server.script = [failing(CODE.UNAVAILABLE, "queue full")] * (3 * calls)
    with way.connect(way.server.url) as client:
        for _ in range(calls):
            with pytest.raises(Busy, match="queue full"):
                client.ground(b"x", "a")
    assert len(way.server.asked) <= 1.2 * calls


def test_every_call_ends_at_its_deadline(way: Way, black_hole: str) -> None:
    way.server.script = [silence]
    for url in (way.server.url, way.url_of(black_hole)):
        with way.connect(url, timeout=0.3) as client, pytest.raises(TimedOut, match=rf"{url} within 0\.3 s"):
            client.ground(b"x", "a")
    with way.connect(way.url_of(black_hole), timeout=0.3) as client:
        assert not client.ready()


def test_the_server_is_told_the_deadline(way: Way) -> None:
    with way.connect(way.server.url, timeout=7) as client:
        client.ground(b"x", "a")
    assert 0 < way.server.asked[0].deadline < 7.5  # gRPC sends it rounded up
    assert 6e6 < way.server.asked[0].timeout_us <= 7e6


def test_nobody_there(way: Way, nobody: str) -> None:
    url = way.url_of(nobody)
    with way.connect(url) as client:
        assert not client.ready()
        with pytest.raises(Unreachable, match=f"no server at {url}: start one with `python -m serve`"):
            client.ground(b"x", "a")


def test_a_name_that_leads_nowhere(way: Way) -> None:
    with way.connect(way.url_of("nowhere.invalid:8001")) as client, pytest.raises((Unreachable, TimedOut)):
        client.ground(b"x", "a")


@pytest.mark.parametrize("name", ["a..b", "x" * 70 + ".org"])
def test_a_name_that_is_none(way: Way, name: str) -> None:
    url = way.url_of(f"{name}:8001")
    with way.connect(url) as client:
        assert not client.ready()
        with pytest.raises(Unreachable, match=f"no server at {url}"):
            client.ground(b"x", "a")


def test_a_stranger_is_told_from_a_server(server: FakeServer) -> None:
    with Client(f"http://{server.url}") as client, pytest.raises(Unreachable, match="does not speak HTTP"):
        client.ground(b"x", "a")
    with (
        running_http(FakeServer()) as fake,
        Client(f"127.0.0.1:{fake.port}") as client,
        pytest.raises(Unreachable, match="a port that speaks HTTP or TLS wants http://"),
    ):
        client.ground(b"x", "a")


@pytest.mark.parametrize("page", ["<html>log in</html>", "[]", "null", '{"outputs": [{"name": "BOX"}]}'])
def test_a_page_is_no_answer(page: str) -> None:
    """What a proxy answers in Triton's place, though it calls it a success."""

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        with (
            Client(f"http://127.0.0.1:{proxy.server_port}") as client,
            pytest.raises(ServerFailed, match="cannot be read"),
        ):
            client.ground(b"x", "a")
        proxy.shutdown()


@pytest.mark.parametrize(
    "arrays",
    [
        {"BOX": np.zeros((1, 4)), "SCORE": np.zeros(1)},
        {"BOX": np.zeros((2, 5)), "SCORE": np.zeros(2)},
        {"BOX": np.full((2, 4), np.nan), "SCORE": np.zeros(2)},
        {"BOX": np.zeros((2, 4)), "SCORE": np.full(2, np.inf)},
        {"BOX": np.zeros((2, 4))},
        {},
        {"BOX": np.zeros((2, 4)), "SCORE": np.zeros(2), "ATTENTION": np.zeros((2, 9))},
        {"BOX": np.zeros((2, 4)), "SCORE": np.zeros(2), "ATTENTION": np.zeros((2, 3, 4)), "FOUND": np.ones(1, bool)},
        {
            "BOX": np.zeros((2, 4)),
            "SCORE": np.zeros(2),
            "ATTENTION": np.ones((2, 3, 4)),
            "UNKNOWN": np.array([b""], "O"),
        },
        {"BOX": np.zeros((2, 4)), "SCORE": np.zeros(2)},
        *(
            {"BOX": np.zeros((2, 4)), "SCORE": np.zeros(2), "ATTENTION": np.ones((2, 3, 4)), **other_type}
            for other_type in (
                {"BOX": np.full((2, 4), b"", "O")},
                {"PRESENCE": np.full(2, b"", "O")},
                {"FOUND": np.full(2, b"", "O")},
                {"UNKNOWN": np.zeros(2)},
            )
        ),
    ],
)
def test_an_answer_that_is_not_boxes_is_the_servers_failure(way: Way, arrays: dict) -> None:
    way.server.script = [answering(arrays)]
    with way.connect(way.server.url) as client, pytest.raises(ServerFailed, match="answer"):
        client.ground(b"x", ["a", "b"], attention=True)


def test_strings_that_are_cut_off_are_the_servers_failure(way: Way) -> None:
    def cut(server: FakeServer, context: Any) -> Any:
        response = answer(server, context)
        response.raw_output_contents[[output.name for output in response.outputs].index("UNKNOWN")] = b"\xff\0"
        return response

    way.server.script = [cut]
    with way.connect(way.server.url) as client, pytest.raises(ServerFailed, match="cannot be read"):
        client.ground(b"x", "a")

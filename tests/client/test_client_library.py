"""The library: what arrives at the server, what comes back, and which error each failure becomes."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_http import running_http
from fake_kserve import CODE, GRID, FakeServer, answering, box_of, failing, presence_of, running, score_of, silence
from ways import Awaited, Way

from client import (
    AsyncClient,
    Busy,
    Candidate,
    Client,
    Grounding,
    GroundingError,
    Refused,
    ServerFailed,
    TimedOut,
    Unreachable,
)

ROOT = Path(__file__).parents[2]
WRAPPED = (
    "in ensemble 'gin', Failed to process the request(s) for model instance 'prepare_0_0', message: "
    "TritonModelException: EXPRESSION 2 is empty\n\nAt:\n  /srv/model.py(12): execute\n"
)
DEAD_STUB = failing(CODE.INTERNAL, "in ensemble 'gin', Stub process 'prepare_0_0' is not healthy.")


def test_answers_keep_the_order_of_the_expressions(way: Way) -> None:
    expressions = ["the red ball", "", "左边的男人", "the red ball", "naïve\0nought"]
    with way.connect(way.server.url) as client:
        found = client.ground(b"any bytes", expressions)
    assert [g.expression for g in found] == expressions
    assert way.server.asked[0].expressions == [e.encode() for e in expressions]
    for n, grounding in enumerate(found):
        assert grounding.box == box_of(n)
        assert grounding.score == pytest.approx(score_of(n))
        assert grounding.presence == pytest.approx(presence_of(n))
        assert grounding.found is (n == 0)
        assert grounding.unknown == ()
        assert grounding.others == ()
        assert grounding.attention is None
    assert way.server.asked[0].model == "gin"
    assert way.server.asked[0].outputs == ["BOX", "SCORE", "PRESENCE", "FOUND", "UNKNOWN"]
    assert way.server.asked[0].top == 1


def test_one_string_is_a_list_of_one_and_any_iterable_will_do(way: Way) -> None:
    with way.connect(way.server.url) as client:
        assert [g.expression for g in client.ground(b"x", "cup")] == ["cup"]
        assert [g.expression for g in client.ground(b"x", (e for e in "ab"))] == ["a", "b"]


def test_attention_comes_only_when_asked_for(way: Way) -> None:
    with way.connect(way.server.url) as client:
        found = client.ground(b"x", ["a", "b"], attention=True)
    assert way.server.asked[0].outputs == ["BOX", "SCORE", "PRESENCE", "FOUND", "UNKNOWN", "ATTENTION"]
    for n, grounding in enumerate(found):
        assert grounding.attention is not None
        assert grounding.attention.shape == GRID
        assert (grounding.attention == n).all()


def test_the_next_best_boxes_come_only_when_asked_for(way: Way) -> None:
    with way.connect(way.server.url) as client:
        found = client.ground(b"x", ["a", "b"], top_k=3)
        with pytest.raises(Refused, match="0"):
            client.ground(b"x", "a", top_k=0)
    assert way.server.asked[0].top == 3
    for n, grounding in enumerate(found):
        assert grounding.others == (Candidate(box_of(n + 1), pytest.approx(score_of(n + 1))),)  # the fake has no third


def test_without_a_calibration_presence_is_not_known(way: Way) -> None:
    way.server.script = [
        answering(
            {"BOX": np.ones((1, 4)), "SCORE": np.ones(1), "PRESENCE": np.full(1, np.nan), "FOUND": np.ones(1, bool)}
        )
    ]
    with way.connect(way.server.url) as client:
        (found,) = client.ground(b"x", "a")
    assert found.presence is None
    assert found.found


def test_words_that_the_network_does_not_know_come_with_the_answer(way: Way) -> None:
    with way.connect(way.server.url) as client:
        found = client.ground(b"x", ["the zebra über zwölf", "cup"])
    assert [g.unknown for g in found] == [("zebra", "zwölf"), ()]


@pytest.mark.parametrize("expressions", [[], [b"bytes"], [None], ["half \ud800"]])
def test_expressions_that_cannot_be_sent_are_refused_before_asking(way: Way, expressions: list) -> None:
    with way.connect(way.server.url) as client, pytest.raises(Refused):
        client.ground(b"x", expressions)
    assert not way.server.asked


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


def test_the_dead_process_of_one_replica_is_asked_around(way: Way) -> None:
    way.server.script = [DEAD_STUB] * 2
    with way.connect(way.server.url) as client:
        assert client.ground(b"x", "a")[0].box == box_of(0)
    way.server.script = [DEAD_STUB] * 3
    with way.connect(way.server.url) as client, pytest.raises(ServerFailed, match="is not healthy"):
        client.ground(b"x", "a")


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
    way.server.script = [going] * 2
    with way.connect(way.server.url) as client:
        assert client.ground(b"x", "a")[0].box == box_of(0)
    way.server.script = [going] * 3
    with way.connect(way.server.url) as client, pytest.raises(Busy, match="going away"):
        client.ground(b"x", "a")


@pytest.mark.parametrize("way", ["grpc", "grpc, async"], indirect=True)
@pytest.mark.parametrize("code", [CODE.INTERNAL, CODE.UNKNOWN])
def test_an_answer_cut_off_half_way_is_asked_for_again(way: Way, code: CODE) -> None:
    """What gRPC says when the server behind a balancer ends while its answer is under way."""
    cut = failing(code, "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))")
    way.server.script = [cut] * 2
    with way.connect(way.server.url) as client:
        assert client.ground(b"x", "a")[0].box == box_of(0)
    way.server.script = [cut] * 3
    with way.connect(way.server.url) as client, pytest.raises(Unreachable, match="connection .* broke"):
        client.ground(b"x", "a")


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


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_closing_ends_calls(black_hole: str, scheme: str) -> None:
    """Those that other threads wait for, at once, and later ones."""
    client = Client(scheme + black_hole, timeout=60)
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(client.ground, b"x", "a"), pool.submit(client.ready)]
        time.sleep(0.5)
        assert not any(call.done() for call in calls)
        client.close()
        for call in calls:
            assert str(call.exception(timeout=30)) == "this client is closed"
    with pytest.raises(ValueError, match="closed"):
        client.ground(b"x", "a")
    client.close()


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_closing_ends_awaited_calls(black_hole: str, scheme: str) -> None:
    """With the same error; a call that was cancelled before stays cancelled."""

    async def close_while_asking() -> list[object]:
        client = AsyncClient(scheme + black_hole, timeout=60)
        calls = [asyncio.create_task(call) for call in (client.ground(b"x", "a"), client.ready(), client.ready())]
        await asyncio.sleep(0.5)
        assert not any(call.done() for call in calls)
        calls[2].cancel()
        await client.close()
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)

    *closed, cancelled = asyncio.run(close_while_asking())
    assert [repr(error) for error in closed] == ["ValueError('this client is closed')"] * 2
    assert isinstance(cancelled, asyncio.CancelledError)


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_closed_client_stays_closed(way: Way, asked_before: bool) -> None:
    client = way.connect(way.server.url)
    if asked_before:
        assert client.ready()
    if isinstance(client, Awaited):
        with client._runner as runner:
            runner.run(client._client.close())
            with pytest.raises(ValueError, match="closed"):
                client.ground(b"x", "a")
    else:
        client.close()
        with pytest.raises(ValueError, match="closed"):
            client.ground(b"x", "a")


@pytest.mark.parametrize("scheme", ["grpc://", "http://"])
def test_a_forked_process_is_told_to_make_its_own(nobody: str, scheme: str) -> None:
    """Its copy of the client has nobody to send and receive for it, and would wait for ever."""
    with Client(scheme + nobody) as client:
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                client.ground(b"x", "a")
            except ValueError as error:
                client.close()
                os._exit(0 if "forked" in str(error) else 1)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(Unreachable):
            client.ground(b"x", "a")


@pytest.mark.parametrize("connect", [running, running_http])
def test_another_event_loop_is_told_to_make_its_own(connect: Callable[..., Any]) -> None:
    with connect(FakeServer()) as server:
        client = AsyncClient(server.url)

        async def ask_and_close() -> None:
            assert await client.ground(b"x", "a")
            with pytest.raises(ValueError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, client.ground(b"x", "a"))
            await client.close()

        asyncio.run(ask_and_close())


def test_a_server_that_comes_back_is_used_again() -> None:
    with running(FakeServer()) as first:
        client = Client(first.url)
        assert client.ready()
    with pytest.raises(Unreachable):
        client.ground(b"x", "a")
    with running(FakeServer(port=first.port)):
        for _ in range(100):
            if client.ready():
                break
            time.sleep(0.1)
        assert client.ground(b"x", "a")
    client.close()


def test_ready_asks_for_the_model(way: Way) -> None:
    with way.connect(way.server.url) as client:
        assert client.ready()
        way.server.model_is_ready = False
        assert not client.ready()


def test_another_model_may_be_asked(way: Way) -> None:
    way.server.model = "gin_int8"
    with way.connect(way.server.url) as client:
        assert not client.ready()
    with way.connect(way.server.url, model="gin_int8") as client:
        assert client.ready()
        assert client.ground(b"x", "a")[0].box == box_of(0)
    assert way.server.asked[0].model == "gin_int8"


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
    ],
)
def test_an_answer_that_is_not_boxes_is_the_servers_failure(way: Way, arrays: dict) -> None:
    way.server.script = [answering(arrays)]
    with way.connect(way.server.url) as client, pytest.raises(ServerFailed, match="answer"):
        client.ground(b"x", ["a", "b"], attention=True)


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1:8001", "http://localhost", "localhost", "localhost:", ":8001", "a:0", "a:65536", "a b:1", ""],
)
def test_wrong_addresses_are_found_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client(url)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_no_call_without_a_deadline(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Client(timeout=timeout)


@pytest.mark.parametrize(
    "url", ["localhost:8001", "[::1]:8001", "gin.example.org:443", "dns:///gin:8001", "grpc://a:1", "http://a:1/"]
)
def test_right_addresses_are_taken(url: str) -> None:
    Client(url).close()


def test_a_grounding_is_a_plain_value() -> None:
    one = Grounding("a", (0.0, 1.0, 2.0, 3.0), 0.5, attention=np.zeros((2, 2)))
    assert one == Grounding("a", (0.0, 1.0, 2.0, 3.0), 0.5)
    assert len({one, one}) == 1


def test_a_web_proxy_in_the_environment_is_passed_by(
    server: FakeServer, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{nobody}")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(server.url) as client:
        assert client.ready()


def test_the_client_imports_only_what_a_robot_installs() -> None:
    check = (
        "import sys, client, client.aio, client.batch, client.cli, client.over_http;"
        "own = {'torch', 'torchvision', 'onnxruntime', 'model', 'train', 'export', 'serve', 'rich', 'gradio', 'av'};"
        "print(sorted(own & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

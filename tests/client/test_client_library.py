"""The library: what arrives at the server, and what comes back."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_kserve import GRID, FakeServer, answering, box_of, presence_of, score_of
from ways import Way

from client import Candidate, Client, Grounding, Refused

ROOT = Path(__file__).parents[2]


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


@pytest.mark.filterwarnings("error::DeprecationWarning:client")
def test_the_next_best_boxes_come_only_when_asked_for(way: Way) -> None:
    with way.connect(way.server.url) as client:
        found = client.ground(b"x", ["a", "b"], top_k=3)
        for wrong in (0, 1.5, "3"):
            with pytest.raises(Refused, match=f"got {wrong!r}"):
                client.ground(b"x", "a", top_k=wrong)
        client.ground(b"x", "a", top_k=np.int64(2), attention=np.bool_(True))
    assert [asked.top for asked in way.server.asked] == [3, 2]
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


@pytest.mark.parametrize("expressions", [None, 3, b"bytes"])
def test_what_is_no_expression_at_all_is_refused_in_its_place(way: Way, expressions: Any) -> None:
    """So that a row of a table without one does not end a long list."""
    questions = [(b"x", "a"), (b"x", expressions), (b"x", "c")]
    with way.connect(way.server.url) as client:
        first, refused, third = client.ground_many(questions, return_errors=True)
    assert (first[0].expression, third[0].expression) == ("a", "c")
    assert str(refused) == f"expected an expression, or several, as strings, got {type(expressions).__name__}"


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
    "url",
    ["ftp://127.0.0.1:8001", "http://localhost", "localhost", "localhost:", ":8001", "a:0", "a:65536", "a b:1", ""],
)
def test_wrong_addresses_are_found_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client(url)


@pytest.mark.parametrize("timeout", [0, -1, 1e10, float("nan"), float("inf")])
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

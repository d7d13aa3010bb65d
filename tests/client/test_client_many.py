"""Many questions at once: in order, up to a bound, and what happens to those that fail."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from fake_kserve import CODE, FakeServer, answer, failing, running, silence
from ways import Way

from client import AsyncClient, Client, Grounding, Refused


def test_order_is_kept_though_later_answers_come_first(way: Way) -> None:
    second_answered = threading.Event()

    def first_waits(fake: FakeServer, context: object) -> object:
        late = fake.asked[-1].image == b"0"
        reply = answer(fake, context)  # type: ignore[arg-type]
        if late:
            assert second_answered.wait(10)
        else:
            second_answered.set()
        return reply

    way.server.script = [first_waits] * 2  # type: ignore[list-item]
    questions = [(str(n).encode(), [f"thing {n}", "other"]) for n in range(9)]
    with way.connect(way.server.url) as client:
        found = list(client.ground_many(questions, in_flight=3))
    assert [[g.expression for g in answers] for answers in found] == [q[1] for q in questions]
    assert [answers[0].image for answers in found] == [q[0] for q in questions]


def test_questions_are_taken_only_as_needed(way: Way) -> None:
    taken = 0

    def endless() -> Iterator[tuple[bytes, str]]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x", "a"

    with way.connect(way.server.url) as client:
        found = client.ground_many(endless(), in_flight=4)
        next(found)
        assert taken == 4
        next(found)
        assert taken == 5
    with pytest.raises(ValueError, match="at least 1"):
        Client(way.server.url).ground_many([], in_flight=0)


def test_a_question_that_fails_ends_it_or_takes_its_place(way: Way) -> None:
    questions = [(b"x", "a"), (b"x", []), (b"x", "c")]
    with way.connect(way.server.url) as client:
        found = client.ground_many(questions)
        assert next(found)[0].expression == "a"
        with pytest.raises(Refused):
            next(found)
        assert list(found) == []
        first, refused, third = client.ground_many(questions, return_errors=True)
    assert isinstance(refused, Refused)
    assert (first[0].expression, third[0].expression) == ("a", "c")


def test_leaving_early_cancels_what_is_in_flight() -> None:
    """Closing the client frees threads that still wait for an answer."""
    with running(FakeServer(script=[answer] + [silence] * 3)) as server:
        client = Client(server.url, timeout=60)
        found = client.ground_many([(b"x", "a")] * 9, in_flight=1, return_errors=True)
        failures: list[object] = []
        next(found)

        def wait() -> None:
            try:
                next(found)
            except ValueError as error:
                failures.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        until = time.monotonic() + 10
        while len(server.asked) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        client.close()
        waiting.join(10)
    assert failures == ["this client is closed"]


async def _stream(server: FakeServer) -> list[Grounding]:
    async def camera() -> object:
        for n in range(5):
            yield str(n).encode(), "a"

    async with AsyncClient(server.url) as client:
        return [answers[0] async for answers in client.ground_many(camera(), in_flight=2)]  # type: ignore[arg-type]


def test_questions_may_come_asynchronously(server: FakeServer) -> None:
    found = asyncio.run(_stream(server))
    assert [grounding.image for grounding in found] == [b"0", b"1", b"2", b"3", b"4"]


def test_refusals_do_not_use_up_the_budget(way: Way) -> None:
    """A server that refuses is a server that works: its next hiccup is still hidden."""
    way.server.script = [failing(CODE.INVALID_ARGUMENT, "no")] * 30 + [failing(CODE.UNAVAILABLE, "later")]
    with way.connect(way.server.url) as client:
        for outcome in client.ground_many([(b"x", "a")] * 30, return_errors=True):
            assert isinstance(outcome, Refused)
        assert client.ground(b"x", "a")

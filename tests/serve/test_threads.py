"""Threads that do what is submitted."""

import threading
import time
from queue import SimpleQueue

import pytest

from serve.answering.threads import Threads


@pytest.fixture
def idents() -> "SimpleQueue[int]":
    """Where work tells its thread."""
    return SimpleQueue()


def test_the_thread_that_was_free_last_is_asked_again() -> None:
    threads = Threads(3)
    gates = [threading.Event() for _ in range(3)]
    at_work: dict[int, int] = {}  # threads by the number of their gate

    def work(number: int) -> None:
        at_work[number] = threading.get_ident()
        gates[number].wait(10)

    def wait_until_free(count: int) -> None:
        deadline = time.monotonic() + 10
        while len(threads._free) < count and time.monotonic() < deadline:
            time.sleep(0.001)

    for number in range(3):
        threads.submit(work, number)
    deadline = time.monotonic() + 10
    while len(at_work) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    for count, number in enumerate((0, 2, 1), 1):
        gates[number].set()
        wait_until_free(count)
    last = at_work[1]
    for _ in range(5):
        threads.submit(work, 0)
        wait_until_free(3)
        assert at_work[0] == last
    threads.shutdown()


def test_no_more_threads_than_allowed(idents: "SimpleQueue[int]") -> None:
    threads, gate, done = Threads(2), threading.Event(), []

    def work(number: int) -> None:
        idents.put(threading.get_ident())
        gate.wait(10)
        done.append(number)

    for number in range(20):
        threads.submit(work, number)
    idents.get(timeout=10), idents.get(timeout=10)
    assert idents.empty()
    gate.set()
    threads.shutdown()
    assert sorted(done) == list(range(20))
    assert len({idents.get() for _ in range(18)}) <= 2


def test_work_that_raises_costs_no_thread(idents: "SimpleQueue[int]", capsys: pytest.CaptureFixture[str]) -> None:
    threads = Threads(1)
    threads.submit(lambda: {}["a fault"])
    threads.submit(lambda: idents.put(1))
    assert idents.get(timeout=10) == 1
    threads.shutdown()
    assert "KeyError: 'a fault'" in capsys.readouterr().err


def test_what_waits_is_done_in_order_before_the_end() -> None:
    threads, gate, done = Threads(1), threading.Event(), []
    threads.submit(gate.wait, 10)
    for number in range(20):
        threads.submit(done.append, number)
    ending = threading.Thread(target=threads.shutdown)
    ending.start()
    gate.set()
    ending.join(10)
    assert done == list(range(20))

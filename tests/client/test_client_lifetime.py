"""A client from its making to its closing: other processes and event loops, and servers that come back."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alone import run_alone
from fake_http import running_http
from fake_kserve import FakeServer, running
from ways import Awaited, Way

from client import AsyncClient, Client, Unreachable


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


def test_clients_that_nobody_holds_leave_nothing() -> None:
    """Who makes one for each question and closes none would run out of threads and files."""
    with running_http(FakeServer()) as server:
        Client(server.url).ground(b"x", "a")
        until = time.monotonic() + 10
        while (left := [one for one in threading.enumerate() if one.name == "gin-http"]) and time.monotonic() < until:
            time.sleep(0.01)
    assert not left


@pytest.mark.parametrize("scheme", ["grpc://", "http://"])
def test_a_forked_process_is_told_to_make_its_own(nobody: str, scheme: str) -> None:
    """Its copy of the client has nobody to send and receive for it, and would wait for ever."""
    forking = """
with Client(sys.argv[1]) as client:
    child = os.fork()
    try:
        client.ground(b"x", "a")
    except (ValueError if child == 0 else Unreachable) as error:
        print(error, flush=True)
        client.close()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    said = run_alone(forking, scheme + nobody)
    assert sorted("forked" in line for line in said) == [False, True], said


def test_the_end_of_a_forked_process_leaves_the_client_alone() -> None:
    """Also where its copy of the client goes before it, and takes the connections with it."""
    forking = """
clients = [Client(sys.argv[1])]
clients[0].ground(b"x", "a")
child = os.fork()
if child == 0:
    clients.clear()
    gc.collect()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert clients[0].ground(b"x", "a")
clients[0].close()
"""
    with running_http(FakeServer()) as server:
        run_alone(forking, server.url)
    assert len(server.asked) == 2


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

"""Pictures in shared memory: the same answers, no picture taken for another's, and nothing left behind."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from client import shared
from client.errors import Refused, TimedOut, Unreachable
from client.library import Client
from serve import Server
from serve.access import Access

SHARED = Path("/dev/shm")


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions of other programs on this machine are not counted."""
    monkeypatch.setattr(shared, "PREFIX", f"gin-client-{os.getpid()}-")


def regions() -> list[Path]:
    """What the clients of these tests have in shared memory now."""
    return list(SHARED.glob(f"{shared.PREFIX}*"))


@pytest.fixture(scope="module")
def open_server(repository: Path) -> Iterator[Server]:
    """A server that takes regions from everybody."""
    with Server(repository, "127.0.0.1", 0, 0, 0, access=Access(unrestricted=("shared-memory",))) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def open_url(request: pytest.FixtureRequest, open_server: Server) -> str:
    """Its address."""
    return open_server.url if request.param == "http" else f"127.0.0.1:{open_server.grpc_port}"


@pytest.fixture
def pictures(jpeg: bytes) -> list[bytes]:
    """Files of several sizes, up to some that need a larger region than others; each is another file to the server."""
    return [jpeg + bytes([n]) * (n * 700_000) for n in range(4)]


def known_to(server: Server) -> list[str]:
    """The regions that the server itself lists."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as connection:
        return list(connection.get_system_shared_memory_status().regions)


def test_threads_get_the_answers_to_their_own(open_url: str, open_server: Server, pictures: list[bytes]) -> None:
    """Calls at the same time, about pictures and about what is none: each has its own answer; then nothing is left."""
    asked = [(n, pictures[n]) if n < 4 else (n, f"no picture {n}".encode()) for n in [0, 4, 1, 2, 5, 3] * 4]
    with Client(open_url, 60, shared_memory=True) as client, Client(open_url, 60) as plain:
        expected = plain.ground(pictures[0], ["star", "the red circle"])

        def ask(numbered: tuple[int, bytes]) -> bool:
            number, data = numbered
            try:
                answers = client.ground(data, ["star", "the red circle"])
            except Refused as error:
                return number >= 4 and "none of JPEG" in str(error)
            boxes = [answer.box for answer in answers]
            return number < 4 and boxes == [pytest.approx(answer.box, abs=0.01) for answer in expected]

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, asked))
        client.ground(pictures[0], "star")
        assert 0 < len(regions()) <= 4
        assert known_to(open_server)
    assert regions() == []
    assert known_to(open_server) == []


def test_a_region_of_its_own_for_each_of_two_calls(open_url: str, jpeg: bytes) -> None:
    """While one call has a region the next one gets another; a region that is free again is used again."""
    with Client(open_url, 60, shared_memory=True) as client:
        assert client._regions is not None
        with client._regions.holding(jpeg, 60) as one, client._regions.holding(jpeg, 60) as other:
            assert one.region != other.region
            assert (SHARED / other.region).read_bytes()[4:].startswith(jpeg)
        with client._regions.holding(jpeg, 60) as again:
            assert again.region in (one.region, other.region)


def test_what_failed_leaves_nothing(open_url: str, open_server: Server, jpeg: bytes) -> None:
    """A call that ends too early gives its region up at once, and the server lets go of it after the next one."""
    with Client(open_url, 60, shared_memory=True) as client:
        client.ground(jpeg, "star")
        client.timeout = 1e-3
        with pytest.raises(TimedOut):
            client.ground(jpeg * 200, "star")
        assert regions() == []
        client.timeout = 60
        assert len(client.ground(jpeg, ["star"])) == 1
    assert regions() == []
    assert known_to(open_server) == []


def test_a_server_that_forgot_is_told_again(open_url: str, open_server: Server, jpeg: bytes) -> None:
    """As one does that started anew between two calls."""
    with Client(open_url, 60, shared_memory=True) as client:
        first = client.ground(jpeg, "star")
        with triton.InferenceServerClient(f"127.0.0.1:{open_server.grpc_port}") as connection:
            connection.unregister_system_shared_memory()
        assert client.ground(jpeg, "star")[0].box == pytest.approx(first[0].box, abs=0.01)


def test_a_server_that_takes_none_is_said(url: str, server: Server, jpeg: bytes) -> None:
    """The usual server keeps shared memory for its administrator; where there is none that is what is said."""
    for address in (url, server.url):
        with (
            Client(address, shared_memory=True) as client,
            pytest.raises(Refused, match="--unrestricted shared-memory"),
        ):
            client.ground(jpeg, "star")
    with socket.socket() as probe:  # bound and not listening
        probe.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{probe.getsockname()[1]}"
        with Client(nowhere, shared_memory=True) as client, pytest.raises(Unreachable, match="no server"):
            client.ground(jpeg, "star")
    assert regions() == []

"""Shared memory when the client is closed; with a server that has some: tests/serve/test_shared_memory.py."""

from pathlib import Path

import pytest
from fake_kserve import FakeServer
from tritonclient.utils import InferenceServerException

from client import Client, shared


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_closing_again_is_no_failure(server: FakeServer, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the end of a call that was under way, whose region the server had not let go of by then."""

    def in_use(_region: str, _seconds: float) -> None:
        raise InferenceServerException("the region is in use")

    monkeypatch.setattr(shared, "_WAIT", 0.1)
    with Client(scheme + server.url, shared_memory=True) as client:
        connection, regions = client._connection, client._regions
        assert regions is not None
        monkeypatch.setattr(connection, "share", lambda *_: None)
        with regions.holding(b"x", 1) as place:
            with monkeypatch.context() as patch:
                patch.setattr(connection, "unshare", in_use)
                client.close()
            assert Path("/dev/shm", place.region).exists()
        assert not Path("/dev/shm", place.region).exists()

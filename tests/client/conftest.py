"""A scripted server and a picture, for the tests of the client."""

import io
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from fake_http import running_http
from fake_kserve import FakeServer, running
from PIL import Image
from ways import Awaited, Way

from client import Client


@pytest.fixture(params=["grpc", "http", "grpc, async", "http, async"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """Each way of asking: over gRPC or HTTP, blocking or awaited."""
    http = "http" in request.param
    with (running_http if http else running)(FakeServer()) as fake:
        yield Way(Awaited if "async" in request.param else Client, fake, http)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server on a free port, answering known boxes unless its script says otherwise."""
    with running(FakeServer()) as fake:
        yield fake


@pytest.fixture
def nobody() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that takes connections and says nothing, ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def pixels() -> np.ndarray:
    """(40, 60, 3) uint8 of noise: no two rows, columns or channels alike."""
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def sideways(pixels: np.ndarray) -> bytes:
    """A JPEG file, 60 x 40 as stored and 40 x 60 for a person, because its EXIF data say to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()

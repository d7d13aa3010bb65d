"""The real server on a repository with a small exported network, started once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.library import Client
from export import onnx, torchscript
from export.command import export_to_repository
from serve import Server
from tests.conftest import Once

COMMITTED = Path(__file__).parent.parent.parent / "triton_repo"
QUESTION = ["the red circle left of the blue square", "star"]
BUILT = ("[0-9]*", "warmup")


def copy_repository(target: Path) -> Path:
    """The committed repository without built files."""
    shutil.copytree(COMMITTED, target, ignore=shutil.ignore_patterns(*BUILT))
    return target


@pytest.fixture(scope="session")
def repository(checkpoint_path: Path, once: Once) -> Path:
    """A repository that the small network was exported into."""

    def fill(folder: Path) -> None:
        copy_repository(folder / "triton_repo")
        for kind in (onnx.FORMAT, torchscript.FORMAT):
            export_to_repository(checkpoint_path, kind, folder / "triton_repo")

    return once("serve", fill) / "triton_repo"


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """A running Triton server."""
    with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as running:
        yield running


@pytest.fixture(scope="session")
def url(server: Server) -> str:
    """Its gRPC address."""
    return f"{server.address}:{server.grpc_port}"


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[Client]:
    """A client of it."""
    with Client(url) as connected:
        yield connected

"""The real server on a repository with a small exported network, started once."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.library import Client
from export import onnx, torchscript
from export.formats import Format
from export.manifest import read_manifest
from export.publish import publish_models
from serve import Server
from tests.conftest import Once

COMMITTED = Path(__file__).parent.parent.parent / "triton_repo"
QUESTION = ["the red circle left of the blue square", "star"]
BUILT = ("[0-9]*", "warmup")


def copy_repository(target: Path) -> Path:
    """The committed repository without built files."""
    shutil.copytree(COMMITTED, target, ignore=shutil.ignore_patterns(*BUILT))
    return target


def add_models(repository: Path, exported: Path, kind: Format) -> None:
    """Make exported files a version of the models that serve them."""
    staged = shutil.copytree(exported, repository / ".staged")
    publish_models(staged, read_manifest(staged), kind, repository)
    shutil.rmtree(staged)


@pytest.fixture(scope="session")
def repository(export_once: Callable[[Format], Path], once: Once) -> Path:
    """A repository with the small network as `gin` and `gin_onnx`."""

    def fill(folder: Path) -> None:
        add_models(copy_repository(folder / "triton_repo"), export_once(onnx.FORMAT), onnx.FORMAT)

    return once("serve", fill) / "triton_repo"


@pytest.fixture(scope="session")
def full_repository(repository: Path, export_once: Callable[[Format], Path], once: Once) -> Path:
    """The same with `gin_torchscript`, whose process takes seconds to start."""

    def fill(folder: Path) -> None:
        shutil.copytree(repository, folder / "triton_repo")
        add_models(folder / "triton_repo", export_once(torchscript.FORMAT), torchscript.FORMAT)

    return once("serve-all", fill) / "triton_repo"


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """A running Triton server on `repository`."""
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

"""The demo network, exported: the one whose numbers the documentation shows."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from export import onnx
from export.command import export_to_repository
from serve import Server
from tests.blocks import ROOT
from tests.conftest import Once
from tests.serve.conftest import copy_repository


@pytest.fixture(scope="session")
def repository(once: Once) -> Path:
    """A repository with the demo network in `gin`."""
    only_gin = dataclasses.replace(onnx.FORMAT, models={"gin": onnx.FORMAT.models["gin"]})

    def fill(folder: Path) -> None:
        copy_repository(folder / "triton_repo")
        export_to_repository(ROOT / "checkpoints" / "demo.pth", only_gin, folder / "triton_repo")

    return once("demo", fill) / "triton_repo"


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """A running Triton server on it."""
    with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as running:
        yield running

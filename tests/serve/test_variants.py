"""Precisions side by side: exported into the same repository, served by the same server, asked by their names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from model.checkpoint import Checkpoint
from serve import Server
from tests.serve.test_answers import QUESTIONS, in_pytorch
from tests.serve.test_networks import network_inputs


@pytest.fixture(scope="module")
def served(repository: Path, half: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of fp32 and fp16."""
    both = shutil.copytree(repository, tmp_path_factory.mktemp("variants") / "triton_repo")
    shutil.copytree(half, both, dirs_exist_ok=True)
    with Server(both, grpc_port=0, http_port=0, metrics_port=0) as server:
        yield server


@pytest.fixture
def connection(served: Server) -> Iterator[triton.InferenceServerClient]:
    """A client that can name models."""
    with triton.InferenceServerClient(f"{served.address}:{served.grpc_port}") as client:
        yield client


def test_all_are_served(connection: triton.InferenceServerClient) -> None:
    """The new ones do not take the place of any."""
    for name in ("gin", "gin_fp16", "gin_onnx", "gin_onnx_fp16", "gin_torchscript"):
        assert connection.is_model_ready(name), name


@pytest.mark.parametrize("name", ["gin", "gin_fp16"])
def test_boxes(connection: triton.InferenceServerClient, checkpoint: Checkpoint, jpeg: bytes, name: str) -> None:
    """Each answers files and expressions, as exactly as its precision allows."""
    inputs = [triton.InferInput("IMAGE", [1], "BYTES"), triton.InferInput("EXPRESSION", [len(QUESTIONS)], "BYTES")]
    inputs[0].set_data_from_numpy(np.array([jpeg], dtype=np.object_))
    inputs[1].set_data_from_numpy(np.array([text.encode() for text in QUESTIONS], dtype=np.object_))
    given = connection.infer(name, inputs, client_timeout=60).as_numpy("BOX")
    expected = in_pytorch(checkpoint, jpeg, QUESTIONS)[0]
    np.testing.assert_allclose(given, expected, atol=0.05 if name == "gin" else 2)
    assert (name == "gin") == bool(np.allclose(given, expected, atol=1e-3))


def test_network(connection: triton.InferenceServerClient, checkpoint: Checkpoint, jpeg: bytes) -> None:
    """The network alone in half precision is another than in fp32, but not by much."""
    inputs = network_inputs(checkpoint, jpeg, QUESTIONS)
    half, full = (connection.infer(name, inputs).as_numpy("scores") for name in ("gin_onnx_fp16", "gin_onnx"))
    np.testing.assert_allclose(half, full, atol=0.01)
    assert not np.array_equal(half, full)

"""Backends and precisions side by side: in one repository, served by one server, asked by their names."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from export.graphs import ANSWERS, INPUTS
from model.checkpoint import Checkpoint
from serve import Server
from tests.serve.test_answers import QUESTIONS, in_pytorch


def network_inputs(checkpoint: Checkpoint, jpeg: bytes, questions: Sequence[str]) -> list[triton.InferInput]:
    """What a network is asked about one image, prepared."""
    pixels, size = checkpoint.preparation.image(jpeg)
    ids, lengths = checkpoint.preparation.expressions(questions)
    arrays = pixels[None], ids, lengths, np.zeros(len(ids), dtype=np.int64), np.array([size])
    return [
        triton.InferInput(key, list(array.shape), "UINT8" if key == "images" else "INT64").set_data_from_numpy(array)
        for key, array in zip(INPUTS, arrays, strict=True)
    ]


@pytest.fixture(scope="module")
def served(full_repository: Path, half: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of all of them."""
    both = shutil.copytree(full_repository, tmp_path_factory.mktemp("variants") / "triton_repo")
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


@pytest.mark.parametrize("name", ["gin_onnx", "gin_torchscript"])
def test_network_alone(
    connection: triton.InferenceServerClient, checkpoint: Checkpoint, jpeg: bytes, name: str
) -> None:
    """From both backends prepared arrays get PyTorch's answers, every output under its backend's name."""
    result = connection.infer(name, network_inputs(checkpoint, jpeg, QUESTIONS), client_timeout=60)
    for place, (output, expected) in enumerate(zip(ANSWERS, in_pytorch(checkpoint, jpeg, QUESTIONS), strict=True)):
        given = result.as_numpy(output if name == "gin_onnx" else f"{output}__{place}")
        np.testing.assert_allclose(given, expected, atol=0.05 if output == "boxes" else 1e-4)


@pytest.mark.parametrize("name", ["gin_onnx", "gin_torchscript"])
def test_nothing_asked(
    connection: triton.InferenceServerClient, checkpoint: Checkpoint, jpeg: bytes, name: str
) -> None:
    """No expressions are refused, by a process that lives on."""
    inputs = network_inputs(checkpoint, jpeg, QUESTIONS)
    none = [asked if asked.name() in ("images", "image_sizes") else without_rows(asked) for asked in inputs]
    with pytest.raises(InferenceServerException, match="expression_ids has no elements") as caught:
        connection.infer(name, none, client_timeout=60)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert connection.infer(name, inputs, client_timeout=60)


def without_rows(asked: triton.InferInput) -> triton.InferInput:
    """The same input about no expressions."""
    shape = [0, *asked.shape()[1:]]
    return triton.InferInput(asked.name(), shape, "INT64").set_data_from_numpy(np.zeros(shape, np.int64))


def test_network_in_half_precision(
    connection: triton.InferenceServerClient, checkpoint: Checkpoint, jpeg: bytes
) -> None:
    """It is another than in fp32, but not by much."""
    inputs = network_inputs(checkpoint, jpeg, QUESTIONS)
    half, full = (connection.infer(name, inputs).as_numpy("scores") for name in ("gin_onnx_fp16", "gin_onnx"))
    np.testing.assert_allclose(half, full, atol=0.01)
    assert not np.array_equal(half, full)

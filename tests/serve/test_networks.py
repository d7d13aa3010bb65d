"""The networks themselves, served by both backends for clients that prepare the inputs."""

from collections.abc import Sequence

import numpy as np
import pytest
import tritonclient.grpc as triton

from export.graphs import ANSWERS, INPUTS
from model.checkpoint import Checkpoint
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


@pytest.mark.parametrize("name", ["gin_onnx", "gin_torchscript"])
def test_equals_pytorch(url: str, checkpoint: Checkpoint, jpeg: bytes, name: str) -> None:
    """Prepared arrays are answered as in PyTorch, every output under its backend's name."""
    with triton.InferenceServerClient(url) as connection:
        result = connection.infer(name, network_inputs(checkpoint, jpeg, QUESTIONS), client_timeout=60)
    for place, (output, expected) in enumerate(zip(ANSWERS, in_pytorch(checkpoint, jpeg, QUESTIONS), strict=True)):
        given = result.as_numpy(output if name == "gin_onnx" else f"{output}__{place}")
        np.testing.assert_allclose(given, expected, atol=0.05 if output == "boxes" else 1e-4)

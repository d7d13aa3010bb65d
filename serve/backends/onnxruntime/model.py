"""A Triton backend named `onnxruntime` for servers that lack NVIDIA's: serves model.onnx files with ONNX Runtime.

It is a Python-based backend: Triton runs this module for every model whose configuration names the backend, so the
same configuration works here and in NVIDIA's container.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))  # Triton's interpreter ignores it

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from serve.network_model import NetworkModel  # noqa: E402
from serve.sessions import CannotOpen, open_session  # noqa: E402

ONNX_TYPES = {"FP16": "float16", "FP32": "float", "FP64": "double"}  # where the name is not Triton's in lower case


class TritonPythonModel(NetworkModel):
    """One instance of one ONNX model."""

    engine = "ONNX Runtime"

    def initialize(self, args: dict[str, str]) -> None:
        """Open the file and compare its inputs and outputs with the configuration."""
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        try:
            self.session = open_session(path, config, device)
        except CannotOpen as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self.inputs = _check("input", config["input"], self.session.get_inputs(), path)
        _check("output", config["output"], self.session.get_outputs(), path)

    def run(self, arrays: dict[str, np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
        """As NetworkModel."""
        return list(self.session.run(list(wanted), arrays))


def _check(kind: str, configured: list[dict], found: list[onnxruntime.NodeArg], path: Path) -> list[str]:
    """Names of the configured inputs or outputs, which must be in the file with the same type and dimensions."""
    names, tensors = [entry["name"] for entry in configured], {tensor.name: tensor for tensor in found}
    unfed = set(tensors) - set(names) if kind == "input" else set()
    if unfed or not set(names) <= set(tensors):
        raise pb_utils.TritonModelException(f"{path} has the {kind}s {list(tensors)}, its configuration has {names}")
    for entry in configured:
        tensor, dims = tensors[entry["name"]], [int(size) for size in entry["dims"]]
        data_type = entry["data_type"].removeprefix("TYPE_")
        fits = _fit(tensor.shape, dims, exactly=kind == "output")
        if tensor.type != f"tensor({ONNX_TYPES.get(data_type, data_type.lower())})" or not fits:
            raise pb_utils.TritonModelException(
                f"{path} has the {kind} {tensor.name!r} as {tensor.type} {tensor.shape}, "
                f"its configuration as {data_type} {dims}"
            )
    return names


def _fit(shape: list, dims: list[int], exactly: bool) -> bool:
    """Whether the configuration has every size that the file fixes and, exactly, no others: what NVIDIA's backend asks
    of inputs, and of outputs. Sizes that the file leaves open are names there and -1 in the configuration."""
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return len(sizes) == len(dims) and all(
        size == wanted or (size == -1 and not exactly) for size, wanted in zip(sizes, dims, strict=True)
    )

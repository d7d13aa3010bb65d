"""A Triton backend named `onnxruntime` for servers that lack NVIDIA's: serves model.onnx files with ONNX Runtime.

It is a Python-based backend: Triton runs this module for every model whose configuration names the backend, so the
same configuration works here and in NVIDIA's container.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))  # Triton's interpreter ignores it

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

onnxruntime.disable_telemetry_events()  # a server tells nobody what it does

ONNX_TYPES = {"FP16": "float16", "FP32": "float", "FP64": "double"}  # where the name is not Triton's in lower case
THREADS = {"intra_op_thread_count": "intra_op_num_threads", "inter_op_thread_count": "inter_op_num_threads"}


class TritonPythonModel:
    """One instance of one ONNX model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the file and compare its inputs and outputs with the configuration."""
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        on_gpu = args["model_instance_kind"] == "GPU"
        self.session = _open(path, _options(config), on_gpu, int(args["model_instance_device_id"]))
        self.inputs = _check("input", config["input"], self.session.get_inputs(), path)
        _check("output", config["output"], self.session.get_outputs(), path)

    def execute(self, requests: list) -> list:
        """One response per request, each run on its own."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        if request.is_cancelled():
            return _error("the request was cancelled", pb_utils.TritonError.CANCELLED)
        try:
            arrays = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            wanted = list(request.requested_output_names())
            results = self.session.run(wanted, arrays)
        except Exception as error:
            pb_utils.Logger.log_error(traceback.format_exc())
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return _error(f"ONNX Runtime: {reason}", pb_utils.TritonError.INTERNAL)
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in zip(wanted, results, strict=True)
        ]
        return pb_utils.InferenceResponse(tensors)


def _options(config: dict) -> onnxruntime.SessionOptions:
    """Thread counts from the configuration's parameters, under the names of NVIDIA's backend."""
    options = onnxruntime.SessionOptions()
    for parameter, attribute in THREADS.items():
        value = config.get("parameters", {}).get(parameter, {}).get("string_value")
        if value:
            setattr(options, attribute, int(value))
    return options


def _open(path: Path, options: onnxruntime.SessionOptions, on_gpu: bool, device: int) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise pb_utils.TritonModelException(f"{path} does not exist")
    providers: list = ["CPUExecutionProvider"]
    if on_gpu:
        onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed; the loader's own paths lack them
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device}))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise pb_utils.TritonModelException(f"{path} cannot be opened: {error}") from None
    running = session.get_providers()[0]  # ONNX Runtime falls back to the CPU without a word
    if on_gpu and running != "CUDAExecutionProvider":
        raise pb_utils.TritonModelException(
            f"{path} was to run on GPU {device}, but ONNX Runtime chose {running}; "
            "an instance_group of KIND_CPU in its configuration would allow that"
        )
    pb_utils.Logger.log_info(f"{path} runs on {running}")
    return session


def _check(kind: str, configured: list[dict], found: list[onnxruntime.NodeArg], path: Path) -> list[str]:
    """Names of the configured inputs or outputs, which must be in the file with the same type and dimensions."""
    names, tensors = [entry["name"] for entry in configured], {tensor.name: tensor for tensor in found}
    unfed = set(tensors) - set(names) if kind == "input" else set()
    if unfed or not set(names) <= set(tensors):
        raise pb_utils.TritonModelException(f"{path} has the {kind}s {list(tensors)}, its configuration has {names}")
    for entry in configured:
        tensor, dims = tensors[entry["name"]], [int(size) for size in entry["dims"]]
        data_type = entry["data_type"].removeprefix("TYPE_")
        if tensor.type != f"tensor({ONNX_TYPES.get(data_type, data_type.lower())})" or not _fit(tensor.shape, dims):
            raise pb_utils.TritonModelException(
                f"{path} has the {kind} {tensor.name!r} as {tensor.type} {tensor.shape}, "
                f"its configuration as {data_type} {dims}"
            )
    return names


def _fit(shape: list, dims: list[int]) -> bool:
    """Whether the file's sizes, numbers or names, and the configuration's, where -1 is any, can be the same."""
    return len(shape) == len(dims) and all(
        size == wanted or wanted == -1 or not isinstance(size, int) for size, wanted in zip(shape, dims, strict=True)
    )


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

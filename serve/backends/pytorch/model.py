"""A Triton backend named `pytorch` for servers that lack NVIDIA's: serves TorchScript files, model.pt.

It is a Python-based backend: Triton runs this module for every model whose configuration names the backend, so the
same configuration works here and in NVIDIA's container. As there, inputs go by the names of the network's arguments,
and outputs are called name__position.
"""

import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))  # Triton's interpreter ignores it

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

try:
    import torch
except ImportError:
    raise pb_utils.TritonModelException("TorchScript files need PyTorch; run `pip install torch`") from None

from serve.cores import cores  # noqa: E402
from serve.network_model import NetworkModel  # noqa: E402
from serve.sessions import CannotOpen, thread_count  # noqa: E402

THREADS = {"INTRA_OP_THREAD_COUNT": torch.set_num_threads, "INTER_OP_THREAD_COUNT": torch.set_num_interop_threads}


class TritonPythonModel(NetworkModel):
    """One instance of one TorchScript network, in a process of its own."""

    engine = "PyTorch"

    def initialize(self, args: dict[str, str]) -> None:
        """Open the file and compare its arguments with the configuration."""
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.pt"
        path = Path(args["model_repository"]) / args["model_version"] / name
        torch.set_num_threads(cores())
        try:
            for key, set_threads in THREADS.items():
                if threads := thread_count(path, config, key):
                    set_threads(threads)
        except CannotOpen as error:
            raise pb_utils.TritonModelException(str(error)) from None
        on_gpu = args["model_instance_kind"] == "GPU"
        self.device = torch.device("cuda", int(args["model_instance_device_id"])) if on_gpu else torch.device("cpu")
        self.network = _open(path, self.device)
        self.inputs = _arguments(self.network, config, path)
        self.places = {entry["name"]: _place(entry["name"], path) for entry in config["output"]}

    def run(self, arrays: dict[str, np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
        """As NetworkModel."""
        try:
            with torch.inference_mode():
                tensors = [torch.from_numpy(np.require(arrays[name], requirements="W")) for name in self.inputs]
                answers = self.network(*(tensor.to(self.device) for tensor in tensors))
            answers = [answers] if isinstance(answers, torch.Tensor) else answers
            return [answers[self.places[name]].cpu().numpy() for name in wanted]
        except RuntimeError:
            _end_if_lost(self.device)
            raise


def _open(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    if not path.is_file():
        raise pb_utils.TritonModelException(f"{path} does not exist")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise pb_utils.TritonModelException(
            f"{path} was to run on {device}, but PyTorch sees no GPU; "
            "an instance_group of KIND_CPU in its configuration would allow the CPU"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:  # RuntimeError, ValueError and others
        raise pb_utils.TritonModelException(f"{path} cannot be opened: {str(error).strip().splitlines()[0]}") from None


def _end_if_lost(device: torch.device) -> None:
    """End the process if it can use its GPU no more, for the server to start another one: after a number that is out of
    range, which a kernel notices, CUDA fails whatever else is asked of it."""
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            traceback.print_exc()  # straight away, for Triton's logger would not get to it
            os._exit(1)


def _arguments(network: torch.jit.ScriptModule, config: dict, path: Path) -> list[str]:
    """Names of the network's arguments, in order; the configuration must have the same."""
    schema = network._c._get_method("forward").schema
    arguments = [argument.name for argument in schema.arguments][1:]  # without self
    configured = [entry["name"] for entry in config["input"]]
    if set(arguments) != set(configured):
        raise pb_utils.TritonModelException(f"{path} has the inputs {arguments}, its configuration has {configured}")
    return arguments


def _place(name: str, path: Path) -> int:
    place = name.rpartition("__")[2]
    if not place.isdigit():
        raise pb_utils.TritonModelException(f"the output {name!r} configured for {path} is not called NAME__POSITION")
    return int(place)

"""What the backends of this project have in common: arrays in, arrays out, one response per request."""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class NetworkModel(ABC):
    """A Triton model that runs a network; subclasses open it and say how it is run.

    engine: what runs it, for error messages. inputs: their names.
    """

    engine: str
    inputs: Sequence[str]

    @abstractmethod
    def run(self, arrays: dict[str, np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
        """The wanted outputs, in that order."""

    def execute(self, requests: list) -> list:
        """One response per request, each run on its own."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        if request.is_cancelled():
            return _error("the request was cancelled", pb_utils.TritonError.CANCELLED)
        try:
            arrays = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            if empty := [name for name, array in arrays.items() if not array.size]:
                # A recurrent layer without rows has ONNX Runtime end the process.
                return _error(f"{empty[0]} has no elements", pb_utils.TritonError.INVALID_ARG)
            wanted = list(request.requested_output_names())
            results = self.run(arrays, wanted)
        except Exception as error:
            pb_utils.Logger.log_error(traceback.format_exc())
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            return _error(f"{self.engine}: {reason}", pb_utils.TritonError.INTERNAL)
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in zip(wanted, results, strict=True)
        ]
        return pb_utils.InferenceResponse(tensors)


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

"""Triton Python model: file bytes and sentences to the network's inputs."""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

# Triton's embedded interpreter ignores PYTHONPATH. What it lacks is taken from the checkout around this file.
ROOT = str(Path(__file__).resolve().parents[3])
sys.path[:0] = filter(None, [*os.environ.get("PYTHONPATH", "").split(os.pathsep), ROOT])

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from model.preparation import InvalidInput, Preparation  # noqa: E402


class TritonPythonModel:
    """Prepares each request on its own: a bad one fails alone."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the facts that the export wrote."""
        path = Path(args["model_repository"]) / args["model_version"] / "vocabulary.json"
        try:
            self.preparation = Preparation.load(path)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise pb_utils.TritonModelException(f"{path} cannot be read ({reason}); export the network again") from None

    def execute(self, requests: list) -> list:
        """One response per request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        if request.is_cancelled():
            return _error("the request was cancelled", pb_utils.TritonError.CANCELLED)
        try:
            return pb_utils.InferenceResponse(self._prepare(request))
        except InvalidInput as error:
            return _error(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            pb_utils.Logger.log_error(traceback.format_exc())
            return _error(f"preparing the inputs failed: {type(error).__name__}", pb_utils.TritonError.INTERNAL)

    def _prepare(self, request: Any) -> list:
        image = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
        expressions = pb_utils.get_input_tensor_by_name(request, "EXPRESSION").as_numpy()
        try:
            pixels, size = self.preparation.image(image[0])
        except InvalidInput as error:
            raise InvalidInput(f"IMAGE: {error}") from None
        try:
            ids, lengths = self.preparation.expressions(list(expressions))
        except InvalidInput as error:
            raise InvalidInput(f"EXPRESSION: {error}") from None
        arrays = {
            "images": pixels[None],
            "expression_ids": ids,
            "lengths": lengths,
            "image_index": np.zeros(len(ids), dtype=np.int64),
            "image_sizes": np.array([size], dtype=np.int64),
        }
        return [pb_utils.Tensor(name, array) for name, array in arrays.items()]


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

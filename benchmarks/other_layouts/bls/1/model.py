"""A Python model that prepares and then calls the network's model itself (business logic scripting)."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

# Triton's embedded interpreter ignores it, and would take NumPy, which pb_utils imports, from elsewhere.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import triton_python_backend_utils as pb_utils  # noqa: E402


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Take the preparation from the model that does only this."""
        path = Path(args["model_repository"]).parent / "prepare" / "1" / "model.py"
        spec = importlib.util.spec_from_file_location("prepare", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.preparing = module.TritonPythonModel()
        self.preparing.initialize(args)

    def execute(self, requests: list) -> list:
        """Each request has one image."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Boxes and scores."""
        inputs = self.preparing.prepare(request)
        call = pb_utils.InferenceRequest(
            model_name="gin_onnx", requested_output_names=["boxes", "scores"], inputs=inputs
        )
        answer = call.exec()
        boxes, scores = (pb_utils.get_output_tensor_by_name(answer, name).as_numpy() for name in ("boxes", "scores"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("BOX", boxes), pb_utils.Tensor("SCORE", scores)])

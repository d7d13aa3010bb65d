"""The network's inputs from a file and expressions, as the first step of an ensemble."""

import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)  # which Triton's embedded interpreter ignores

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from model.preparation import Preparation  # noqa: E402

NAMES = ("images", "expression_ids", "lengths", "image_index", "image_sizes")


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Prepare as the exported network beside it was trained."""
        self.preparation = Preparation.load(Path(args["model_repository"]).parent / "gin" / "1" / "vocabulary.json")

    def execute(self, requests: list) -> list:
        """Each request has one image."""
        return [pb_utils.InferenceResponse(self.prepare(request)) for request in requests]

    def prepare(self, request: Any) -> list:
        """The network's inputs."""
        image = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()[0]
        pixels, size = self.preparation.image(image)
        ids, lengths = self.preparation.expressions(
            list(pb_utils.get_input_tensor_by_name(request, "EXPRESSION").as_numpy())
        )
        arrays = (pixels[None], ids, lengths, np.zeros(len(ids), np.int64), np.array([size], np.int64))
        return [pb_utils.Tensor(name, array) for name, array in zip(NAMES, arrays, strict=True)]

"""Exported ONNX files asked in ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from export.formats import first_line
from export.parity import Runner


def open_onnx(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Runner:
    """Ask a file on the CPU. Raises ValueError if ONNX Runtime lacks what the file needs."""
    options = onnxruntime.SessionOptions()
    # After a run its threads would spin on for a while, on the cores of whatever is asked next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors: it warns of half-precision constants that it cannot fold on the CPU
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no base but Exception
        version = onnxruntime.__version__
        raise ValueError(f"ONNX Runtime {version} does not open {path.name}: {first_line(error)}") from None

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = session.run(list(outputs), {name: arrays[name] for name in inputs})
        return dict(zip(outputs, answers, strict=True))

    return run

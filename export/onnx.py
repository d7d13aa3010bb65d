"""Export a checkpoint as one ONNX file.

    python -m export.onnx CKPT [--repository DIR]

Writes gin_onnx/1/model.onnx and gin_prepare/1/preparation.json into the Triton model repository, after comparing the
file's answers in ONNX Runtime with the checkpoint's; the comparison is printed and kept as parity.json.
"""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from export.files import place, place_report, run_export
from export.lstm import with_free_word_count
from export.parity import Runner, check_parity
from export.rewrite import rewrite
from export.served import DYNAMIC_AXES, INPUTS, OUTPUTS, ServedNetwork, make_question
from model.checkpoint import Checkpoint

OPSET = 18  # what the exporter writes without converting


def export(checkpoint: Checkpoint, repository: Path) -> dict[str, Any]:
    """Write the file and what preparing its inputs needs. Raises ParityError."""
    folder = repository / "gin_onnx" / "1"

    def write(temporary: Path) -> dict[str, Any]:
        write_onnx(checkpoint, temporary)
        return check_parity(checkpoint, onnx_runner(temporary))

    report = place(folder / "model.onnx", write)
    report |= {"file": str(folder / "model.onnx"), "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    report |= {"opset": OPSET}
    place_report(folder / "parity.json", report)
    place(repository / "gin_prepare" / "1" / "preparation.json", checkpoint.preparation.save)
    return report


def write_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Export and check the file's structure; batch, expression and word counts stay free."""
    network = ServedNetwork(with_free_word_count(rewrite(checkpoint.network()))).eval()
    question = make_question(checkpoint, images=2, lengths=[1, 4, 7], seed=0)
    free = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in DYNAMIC_AXES.items()}
    with _quiet():
        program = torch.onnx.export(
            network,
            question.tensors,
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=free,
            opset_version=OPSET,
        )
    assert program is not None  # only the TorchScript-based exporter returns nothing
    model = program.model_proto
    _name_axes(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def onnx_runner(path: Path) -> Runner:
    """Answer questions with a file in ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        return session.run(list(OUTPUTS), dict(zip(INPUTS, inputs, strict=True)))

    return run


def _name_axes(model: onnx.ModelProto) -> None:
    """Give the free axes their names (B, N, T) in place of the exporter's symbols."""
    names = {}
    for value in model.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.dim_param:
                names[dimension.dim_param] = DYNAMIC_AXES[value.name][axis]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            dimension.dim_param = names.get(dimension.dim_param, dimension.dim_param)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and warnings, which tell a user nothing, off the screen."""
    levels = {name: logging.getLogger(name).level for name in ("torch", "onnx_ir")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_export(argv, "python -m export.onnx", "Export a checkpoint as one ONNX file.", export)


if __name__ == "__main__":
    sys.exit(main())

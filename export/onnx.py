"""Export a checkpoint as ONNX files.

    python -m export.onnx CKPT [--precision fp32|fp16|int8] [--size PIXELS] [--out DIR | --repository DIR]

With --out: gin.onnx and its two parts gin_image.onnx and gin_expression.onnx, vocabulary.json, recorded questions and
manifest.json. Into a Triton repository (the default): the models that serve them. Nothing is written unless the files
answer as the checkpoint does in ONNX Runtime; the comparison is printed and kept in the manifest.
"""

import contextlib
import functools
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor

from export.command import make_parser, run_export
from export.formats import PRESENCE, VOCABULARY, Format
from export.graphs import FREE_AXES, Graph
from export.lstm import OnnxLSTM, with_lstm
from export.quantize import quantize
from export.runtime import open_onnx

OPSET = 18  # what the exporter writes without converting; ONNX Runtime 1.14 and later reads it, Triton 24.10 has 1.19
OPSETS = range(18, 24)


def write(graph: Graph, example: Mapping[str, Tensor], path: Path, facts: Mapping[str, str], opset: int) -> None:
    """Export with all axes of `FREE_AXES` free, and check the file's structure."""
    axes = {axis: torch.export.Dim(axis) for axis in "BNT"}
    free = {name: {at: axes[axis] for at, axis in FREE_AXES[name].items()} for name in graph.inputs}
    graph(example)  # which computes the network's constants: see `on_device`
    with _quiet(), torch.no_grad():  # with gradients in mind it takes half as long again
        program = torch.onnx.export(
            with_lstm(graph.module, OnnxLSTM),
            tuple(example[name] for name in graph.inputs),
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=free,
            opset_version=opset,
        )
    assert program is not None  # only the TorchScript-based exporter returns nothing
    model = program.model_proto
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    _name_axes(model)
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def make_format(opset: int = OPSET) -> Format:
    """The format in one opset."""
    packages = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__, "opset": str(opset)}
    return Format(
        name="onnx",
        suffix=".onnx",
        precisions=("fp32", "fp16", "int8"),
        write=functools.partial(write, opset=opset),
        open=open_onnx,
        versions=lambda: packages,
        models={
            "gin_onnx": {"gin": "model"},
            "gin": {
                "gin_image": "image",
                "gin_expression": "expression",
                VOCABULARY: VOCABULARY,
                PRESENCE: PRESENCE,
            },
        },
        quantize=quantize,
    )


FORMAT = make_format()


def _name_axes(model: onnx.ModelProto) -> None:
    """Give the free axes their names (B, N, T) in place of the exporter's symbols."""
    names = {}
    for value in model.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.dim_param:
                names[dimension.dim_param] = FREE_AXES[value.name][axis]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:  # assigning to it would erase a fixed size
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
    parser = make_parser("Export a checkpoint as ONNX files.", FORMAT)
    parser.add_argument("--opset", type=int, default=OPSET, choices=OPSETS, help="of ONNX (default: %(default)s)")
    arguments = parser.parse_args(argv)
    return run_export(arguments, make_format(arguments.opset))


if __name__ == "__main__":
    sys.exit(main())

"""Export a checkpoint as TorchScript files.

    python -m export.torchscript CKPT [--precision fp32|fp16|bf16] [--size PIXELS] [--out DIR | --repository DIR]

As `export.onnx`, with files .pt. PyTorch is retiring TorchScript in favour of `torch.export`; see `export.aot`.
"""

import io
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.command import make_parser, run_export
from export.formats import Format, first_line
from export.graphs import Graph
from export.parity import Runner

FACTS = "facts.json"  # the file inside the archive that says what it is


def write(graph: Graph, example: Mapping[str, Tensor], path: Path, facts: Mapping[str, str]) -> None:
    """Trace and freeze; the axes of `FREE_AXES` stay free, and the file names no device."""
    inputs = tuple(example[name] for name in graph.inputs)
    graph(example)  # computes its constants, which the trace takes as they are
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer warns of constants that are meant to be constant (anchors)
        traced = torch.jit.freeze(torch.jit.trace(graph.module, inputs, check_trace=False))
        _follow_inputs(traced.graph)
        file = io.BytesIO()  # or a full disk would be a crash of PyTorch's and no OSError
        torch.jit.save(traced, file, _extra_files={FACTS: json.dumps(dict(facts))})
    path.write_bytes(file.getbuffer())


def _follow_inputs(graph: torch.Graph) -> None:
    """Make the tensors that the network makes on its way on the device of its inputs, not on that of the trace."""
    made_on = graph.create("prim::device", [list(graph.inputs())[1]], 1)  # the first is the module itself
    made_on.output().setType(torch._C.DeviceObjType.get())
    graph.prependNode(made_on)
    for constant in graph.findAllNodes("prim::Constant"):  # type: ignore[attr-defined]
        if constant.output().type().kind() == "DeviceObjType":
            constant.output().replaceAllUsesWith(made_on.output())


def open_file(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Runner:
    """Ask a file on the CPU. Raises ValueError if PyTorch cannot read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            network = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise ValueError(f"PyTorch {torch.__version__} does not open {path.name}: {first_line(error)}") from None

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            answers = network(*(torch.from_numpy(arrays[name]) for name in inputs))
        return dict(zip(outputs, (answer.numpy() for answer in answers), strict=True))

    return run


FORMAT = Format(
    name="torchscript",
    suffix=".pt",
    precisions=("fp32", "fp16", "bf16"),
    write=write,
    open=open_file,
    versions=dict,
    models={"gin_torchscript": {"gin": "model"}},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = make_parser("Export a checkpoint as TorchScript files.", FORMAT).parse_args(argv)
    return run_export(arguments, FORMAT)


if __name__ == "__main__":
    sys.exit(main())

"""Export a checkpoint as archives compiled ahead of time by PyTorch's Inductor.

    python -m export.aot CKPT --out DIR [--precision fp32|fp16|bf16] [--size PIXELS]

As `export.onnx`, with files .pt2 that run without Python code of this project, on the machine's kind of CPU.
Loading such a file runs the code in it: let `python -m export.check DIR` see it first. A C++ compiler is needed.
"""

import io
import os
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch._inductor import aoti_compile_and_package, aoti_load_package

from export.command import make_parser, run_export
from export.formats import Format, first_line
from export.graphs import FREE_AXES, Graph
from export.lstm import LoopLSTM, with_lstm
from export.parity import Runner


def write(graph: Graph, example: Mapping[str, Tensor], path: Path, facts: Mapping[str, str]) -> None:
    """Export with all axes of `FREE_AXES` free, and compile. Raises ValueError where that is not possible."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(f"there is no C++ compiler {compiler!r} on this machine (CXX names another)")
    free = {name: dict.fromkeys(FREE_AXES[name], torch.export.Dim.DYNAMIC) for name in graph.inputs}
    inputs = tuple(example[name] for name in graph.inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PyTorch's own deprecations
        program = torch.export.export(with_lstm(graph.module, LoopLSTM), inputs, dynamic_shapes=tuple(free.values()))
        options = {"aot_inductor.metadata": dict(facts), "freezing": True}
        file = io.BytesIO()  # or a full disk would be a crash of PyTorch's and no OSError
        try:
            aoti_compile_and_package(program, package_path=file, inductor_configs=options)
        except Exception as error:  # of the compiler, or of the disk
            reason = (str(error).strip() or repr(error)).splitlines()[-1]
            raise ValueError(f"AOTInductor does not compile this network here: {reason}") from error
    path.write_bytes(file.getbuffer())


def open_file(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Runner:
    """Ask a file on the CPU. This runs code of the file. Raises ValueError if PyTorch cannot read it."""
    try:
        network = aoti_load_package(str(path))
    except RuntimeError as error:
        raise ValueError(f"PyTorch {torch.__version__} does not open {path.name}: {first_line(error)}") from None

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = network(*(torch.from_numpy(arrays[name]) for name in inputs))
        return dict(zip(outputs, (answer.numpy() for answer in answers), strict=True))

    return run


FORMAT = Format(
    name="aot",
    suffix=".pt2",
    precisions=("fp32", "fp16", "bf16"),
    write=write,
    open=open_file,
    versions=dict,
    models={},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = make_parser("Export a checkpoint as archives compiled ahead of time.", FORMAT).parse_args(argv)
    return run_export(arguments, FORMAT)


if __name__ == "__main__":
    sys.exit(main())

"""Export a checkpoint as one TorchScript file.

    python -m export.torchscript CKPT [--repository DIR]

Writes gin_torchscript/1/model.pt into the Triton model repository, after comparing its answers with the checkpoint's;
the comparison is printed and kept as parity.json.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.files import place, place_report, run_export
from export.parity import Runner, check_parity
from export.rewrite import rewrite
from export.served import ServedNetwork, make_question
from model.checkpoint import Checkpoint


def export(checkpoint: Checkpoint, repository: Path) -> dict[str, Any]:
    """Write the file. Raises ParityError."""
    folder = repository / "gin_torchscript" / "1"

    def write(temporary: Path) -> dict[str, Any]:
        write_torchscript(checkpoint, temporary)
        return check_parity(checkpoint, torchscript_runner(temporary))

    report = place(folder / "model.pt", write) | {"file": str(folder / "model.pt")}
    place_report(folder / "parity.json", report)
    return report


def write_torchscript(checkpoint: Checkpoint, path: Path) -> None:
    """Trace and freeze; batch, expression and word counts stay free."""
    network = ServedNetwork(rewrite(checkpoint.network())).eval()
    question = make_question(checkpoint, images=2, lengths=[1, 4, 7], seed=0)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer warns of constants that are meant to be constant (anchors)
        traced = torch.jit.trace(network, question.tensors, check_trace=False)
        torch.jit.freeze(traced).save(str(path))


def torchscript_runner(path: Path) -> Runner:
    """Answer questions with a file on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.jit.load(str(path), map_location="cpu")

    def run(inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in network(*(torch.from_numpy(array) for array in inputs))]

    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_export(argv, "python -m export.torchscript", "Export a checkpoint as one TorchScript file.", export)


if __name__ == "__main__":
    sys.exit(main())

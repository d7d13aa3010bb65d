"""Latency of one image and one expression, from eager PyTorch to a Triton server asked over gRPC.

    python benchmarks/latency.py [CKPT] [--blocks N] [--record FILE]

All ways are measured in turn, block after block, so that a change of the machine's speed meets them alike. Prints a
table and, with --record, writes the figures with machine, versions and commit as JSON.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from machine import CHECKPOINT, checkpoint_file, describe_machine, positive, record_file, write_record
from rich.console import Console
from rich.table import Table
from served import CALLS, TRITON, build_repository, example, in_blocks, summarise, unseen

from client.library import Client
from export import onnx, torchscript
from export.graphs import ANSWERS, INPUTS, make_graphs
from model.checkpoint import Checkpoint
from model.preparation import Preparation
from serve import Server

REAL_TIME = 1000 / 30  # milliseconds a frame
PREPARATION = "preparation"
SERVED = "Triton over gRPC, whole answer"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Latency of one image and one expression.")
    which = "default: %(default)s"
    parser.add_argument("checkpoint", nargs="?", type=checkpoint_file, default=CHECKPOINT, metavar="CKPT", help=which)
    blocks = f"blocks of {CALLS} calls (default: %(default)s)"
    parser.add_argument("--blocks", type=positive, default=20, metavar="N", help=blocks)
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    checkpoint = Checkpoint.load(arguments.checkpoint)
    samples = measure(checkpoint, arguments.checkpoint, arguments.blocks)
    rows = {name: summarise(values) for name, values in samples.items()}
    show(rows)
    if arguments.record:
        record = {
            "checkpoint": arguments.checkpoint.name,
            "calls": CALLS * arguments.blocks,
            **describe_machine(onnxruntime=onnxruntime.__version__, triton=TRITON),
        }
        record |= {"milliseconds": rows}
        write_record(arguments.record, record)
    return 0


def measure(checkpoint: Checkpoint, path: Path, blocks: int) -> dict[str, list[float]]:
    """Milliseconds of every call of every way."""
    picture, expression = example()
    with tempfile.TemporaryDirectory() as folder:
        repository = build_repository(path, Path(folder), onnx.FORMAT, torchscript.FORMAT)
        ways = in_process_ways(checkpoint, repository, picture, expression)
        with (
            Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server,
            Client(f"{server.address}:{server.grpc_port}") as client,
        ):
            ways[SERVED] = lambda: client.ground(unseen(picture), expression)
            return in_blocks(ways, blocks)


def in_process_ways(
    checkpoint: Checkpoint, repository: Path, picture: bytes, expression: str
) -> dict[str, Callable[[], Any]]:
    """What is measured inside this process: the preparation, and the network in each form on each device."""
    preparation = checkpoint.preparation
    inputs = prepare(preparation, picture, expression)
    ways: dict[str, Callable[[], Any]] = {PREPARATION: lambda: prepare(preparation, picture, expression)}
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        tensors = [torch.from_numpy(array).to(device) for array in inputs]
        eager = make_graphs(checkpoint.network())["gin"].module.to(device)
        script = torch.jit.load(str(repository / "gin_torchscript" / "1" / "model.pt"), map_location=device)
        ways[f"network, PyTorch eager, {device}"] = torch_way(eager, tensors)
        ways[f"network, TorchScript, {device}"] = torch_way(script, tensors)
    path = str(repository / "gin_onnx" / "1" / "model.onnx")
    feed = dict(zip(INPUTS, inputs, strict=True))
    for provider in ("CPUExecutionProvider", "CUDAExecutionProvider"):
        if provider == "CUDAExecutionProvider" and not torch.cuda.is_available():
            continue
        if provider not in onnxruntime.get_available_providers():
            continue
        session = onnxruntime.InferenceSession(path, providers=[provider])
        if session.get_providers()[0] == provider:  # it falls back to the CPU without a word
            name = f"network, ONNX Runtime, {provider.removesuffix('ExecutionProvider')}"
            ways[name] = lambda session=session: session.run(list(ANSWERS), feed)
    return ways


def torch_way(network: torch.nn.Module, tensors: list[torch.Tensor]) -> Callable[[], Any]:
    """One call of a network, until its answer is on the CPU."""

    def run() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [output.cpu() for output in network(*tensors)]

    return run


def prepare(preparation: Preparation, picture: bytes, expression: str) -> list[np.ndarray]:
    """The network's inputs, in the order of `INPUTS`."""
    pixels, size = preparation.image(picture)
    ids, lengths = preparation.expressions([expression])
    return [pixels[None], ids, lengths, np.zeros(1, dtype=np.int64), np.array([size], dtype=np.int64)]


def show(rows: dict[str, dict[str, float]]) -> None:
    """The table on screen."""
    table = Table("one image, one expression", "median ms", "p90", "p99", "of real time")
    for name, row in rows.items():
        share = f"{row['median'] / REAL_TIME:.0%}"
        table.add_row(name, f"{row['median']:.2f}", f"{row['p90']:.2f}", f"{row['p99']:.2f}", share)
    table.add_section()
    table.add_row("real time: 30 frames a second", f"{REAL_TIME:.2f}", "", "", "100%")
    Console(width=100 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    sys.exit(main())

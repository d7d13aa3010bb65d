"""Latency of exported GIN with ResNet-50 against the original formulation: the network as published, in eager PyTorch.

    python benchmarks/export.py [--size PIXELS] [--repeats N] [--record FILE]

One image and one expression, or one more expression about the same image, on the CPU, from arrays to arrays. All ways
are asked in turn, round after round, so that a change of the machine's speed meets them alike. Speed does not depend on
the weights, so they are random. With --record the figures are written as JSON, with the time that ONNX Runtime spends
in each kind of operator.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from machine import describe_machine, input_size, positive, record_file, write_record
from rich.console import Console
from rich.table import Table

from export import aot, onnx, torchscript
from export.formats import Format
from export.graphs import GRAPHS, Graph, make_graphs
from export.parity import Runner
from export.precision import lower
from export.quantize import Quantizer
from export.questions import Question, arrays, make_question
from export.rewrite import rewrite, rewritings_for
from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.gin import GIN
from model.words import Vocabulary

WORDS = [f"word{number}" for number in range(2_000)]
ASKED = [6]  # words of the expression
WARM_UP = 3  # rounds
CALIBRATED = 4  # questions; ranges do not change the speed
ORIGINAL = "PyTorch eager, as published"
TARGETS = {
    "ONNX Runtime, fp32": 0.58,
    "ONNX Runtime, fp32, one more expression": 0.18,
    "ONNX Runtime, int8": 0.22,
}
Inputs = dict[str, np.ndarray]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Latency of exported files against the original formulation.")
    parser.add_argument("--size", type=input_size, default=320, metavar="PIXELS", help="input size (%(default)s)")
    parser.add_argument("--repeats", type=positive, default=30, metavar="N", help="rounds (%(default)s)")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    config = ModelConfig(image_size=arguments.size)
    network = GIN(config, len(Vocabulary(WORDS)))
    checkpoint = Checkpoint(config, Vocabulary(WORDS), network.state_dict())
    question = make_question(checkpoint, images=1, lengths=ASKED, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        ways = make_ways(checkpoint, question, Path(folder))
        milliseconds = run_rounds(ways, arguments.repeats)
        profiles = {
            name: profile(Path(folder) / f"{name}.onnx", question, Path(folder)) for name in ("gin", "gin.int8")
        }
    ratios = {name: value / milliseconds[ORIGINAL] for name, value in milliseconds.items()}
    table = Table(f"GIN with ResNet-50, {arguments.size} pixels", "median ms", "of the original", "target")
    for name, value in milliseconds.items():
        target = f"{TARGETS[name]:.2f}" if name in TARGETS else ""
        table.add_row(name, f"{value:.1f}", f"{ratios[name]:.3f}", target)
    Console().print(table)
    if arguments.record:
        record = describe_machine(onnxruntime=onnxruntime.__version__)
        record |= {"size": arguments.size, "repeats": arguments.repeats, "milliseconds": milliseconds, "ratio": ratios}
        record |= {"targets": TARGETS, "operators_milliseconds": profiles}
        write_record(arguments.record, record)
    return 0


def make_ways(checkpoint: Checkpoint, question: Question, folder: Path) -> dict[str, Callable[[], Any]]:
    """Every way to ask, by name."""
    original = make_graphs(checkpoint.network())
    rewritten, convolutional = (
        make_graphs(rewrite(checkpoint.network(), rewritings_for(precision))) for precision in ("fp32", "int8")
    )
    asked = arrays(question)
    example = make_question(checkpoint, images=2, lengths=[1, 4, 7], seed=1)
    example |= original["gin_image"](example)

    def export(graph: Graph, kind: Format, name: str) -> Runner:
        path = folder / f"{name}{kind.suffix}"
        kind.write(graph, example, path, {})
        return kind.open(path, graph.inputs, graph.outputs)

    files = {name: export(rewritten[name], onnx.FORMAT, name) for name in GRAPHS}
    asked |= files["gin_image"](asked)
    int8 = {name: quantized(name, convolutional[name], checkpoint, files["gin_image"], folder) for name in GRAPHS}
    ways: dict[str, Callable[[], Any]] = {
        ORIGINAL: lambda: original["gin"](question),
        "PyTorch eager, rewritten": lambda: rewritten["gin"](question),
        "ONNX Runtime, fp32": lambda: files["gin"](asked),
        "ONNX Runtime, fp32, one more expression": lambda: files["gin_expression"](asked),
        "ONNX Runtime, int8": lambda: int8["gin"](asked),
        "ONNX Runtime, int8, one more expression": lambda: int8["gin_expression"](asked),
    }
    for title, kind in (("TorchScript", torchscript.FORMAT), ("AOTInductor", aot.FORMAT)):
        for precision in ("fp32", "bf16"):
            network = rewrite(checkpoint.network(), rewritings_for(precision))
            graph = make_graphs(lower(network, precision))["gin"]
            run = export(graph, kind, f"gin.{precision}")
            ways[f"{title}, {precision}"] = lambda run=run: run(asked)  # type: ignore[misc]
    return ways


def quantized(name: str, graph: Graph, checkpoint: Checkpoint, image_part: Runner, folder: Path) -> Runner:
    """A graph as an ONNX file in int8."""
    example = make_question(checkpoint, images=2, lengths=[1, 4, 7], seed=1)
    example |= {key: torch.from_numpy(value) for key, value in image_part(arrays(example)).items()}
    onnx.FORMAT.write(graph, example, folder / f"{name}.convolutional.onnx", {})
    feeds: list[Inputs] = []
    for seed in range(CALIBRATED):
        asked = arrays(make_question(checkpoint, images=1, lengths=ASKED, seed=seed))
        asked |= image_part(asked)
        feeds.append({key: asked[key] for key in graph.inputs})
    with tempfile.TemporaryDirectory() as temporary:
        quantizer = Quantizer(folder / f"{name}.convolutional.onnx", feeds, Path(temporary))
        quantizer.write(folder / f"{name}.int8.onnx")
    return onnx.FORMAT.open(folder / f"{name}.int8.onnx", graph.inputs, graph.outputs)


def run_rounds(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way, one call of each per round."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number >= WARM_UP:
                samples[name].append(1000 * (time.perf_counter() - started))
    return {name: round(statistics.median(values), 3) for name, values in samples.items()}


def profile(path: Path, question: Question, folder: Path) -> dict[str, float]:
    """Milliseconds of one call in each kind of operator, slowest first, by ONNX Runtime's own profiler."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    calls = 10
    for _ in range(calls):
        session.run(None, arrays(question))
    events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / 1000 / calls
    return {name: round(value, 2) for name, value in spent.most_common(12)}


if __name__ == "__main__":
    sys.exit(main())

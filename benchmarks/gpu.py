"""Latency and rate of GIN with ResNet-50 on a GPU, as published and rewritten in half precision, run as CUDA graphs.

    python benchmarks/gpu.py [--size PIXELS] [--repeats N] [--record FILE]

One image and one expression, then 32 of each, from tensors on the GPU to tensors on the GPU; the rewritten networks
also compiled by PyTorch's Inductor. Speed does not depend on the weights, so they are random. The matrix rate is that
of one large product in bf16, measured in the same run; the operations are those of the rewritten network, without what
a form of it computes in vain.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from machine import describe_machine, input_size, positive, record_file, write_record
from operations import count
from rich.console import Console
from rich.table import Table

from export.cuda import Captured, compile_pieces, for_cuda
from export.graphs import INPUTS, Graph, make_graphs
from export.precision import HALVES, lower
from export.questions import make_question
from export.rewrite import rewrite, rewritings_for
from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.gin import GIN
from model.words import Vocabulary

WORDS = [f"word{number}" for number in range(2_000)]
BATCHES = (1, 32)  # images, each with one expression
ASKED = 6  # words of an expression
MATRIX = 8_192  # side of the product that gives the matrix rate
WARM_UP = 3  # runs
ORIGINAL = "PyTorch eager, as published, fp32"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Latency and rate of GIN with ResNet-50 on a GPU.")
    parser.add_argument("--size", type=input_size, default=320, metavar="PIXELS", help="input size (%(default)s)")
    parser.add_argument("--repeats", type=positive, default=100, metavar="N", help="runs of each (%(default)s)")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    config = ModelConfig(image_size=arguments.size)
    vocabulary = Vocabulary(WORDS)
    checkpoint = Checkpoint(config, vocabulary, GIN(config, len(vocabulary)).state_dict())
    operations = 2 * sum(count(rewrite(checkpoint.network(), rewritings_for("int8"))).values())
    networks = make_networks(checkpoint)
    rate = matrix_rate(arguments.repeats)
    rows = []
    for batch in BATCHES:
        asked = make_question(checkpoint, images=batch, lengths=[ASKED] * batch, seed=0)
        asked["image_index"] = torch.arange(batch)
        asked = {name: asked[name].cuda() for name in INPUTS}
        anchors = networks[ORIGINAL](asked)["anchors"]
        forms = [
            (name, compiled) for compiled in (False, True) for name in networks if name != ORIGINAL or not compiled
        ]
        for name, compiled in forms:
            network = compile_pieces(networks[name], asked) if compiled else networks[name]
            run = Captured(network, asked).replay if name != ORIGINAL else lambda: networks[ORIGINAL](asked)  # noqa: B023
            milliseconds = median_milliseconds(run, arguments.repeats)
            rows.append(
                {
                    "network": f"{name}, compiled" if compiled else name,
                    "batch": batch,
                    "milliseconds": milliseconds,
                    "of_matrix_rate": operations * batch / (milliseconds / 1000) / rate,
                    "same_anchor": float((network(asked)["anchors"] == anchors).float().mean()),
                }
            )
            if arguments.record:  # after each, for compiling takes minutes
                record = describe_machine() | {"size": arguments.size, "repeats": arguments.repeats, "words": ASKED}
                record |= {"operations": operations, "matrix_operations_per_second": rate, "rows": rows}
                write_record(arguments.record, record)
    show(rows)
    return 0


def make_networks(checkpoint: Checkpoint) -> dict[str, Graph]:
    """Every form, by name."""
    networks = {ORIGINAL: make_graphs(checkpoint.network().cuda())["gin"]}
    for precision in HALVES:
        lowered = lower(rewrite(checkpoint.network(), rewritings_for(precision)), precision)
        networks[f"CUDA graph, rewritten, {precision}"] = for_cuda(lowered)
    return networks


def median_milliseconds(run: Callable[[], Any], repeats: int) -> float:
    """Of one run, until the GPU is done."""
    samples = []
    for number in range(WARM_UP + repeats):
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if number >= WARM_UP:
            samples.append(1000 * (time.perf_counter() - started))
    return statistics.median(samples)


def matrix_rate(repeats: int) -> float:
    """Operations a second of a large product of random matrices in bf16."""
    one, other = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * MATRIX**3 / (median_milliseconds(lambda: one @ other, repeats) / 1000)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table on screen."""
    table = Table("network", "images", "median ms", "of the matrix rate", "same anchor as published")
    for row in rows:
        table.add_row(
            row["network"],
            str(row["batch"]),
            f"{row['milliseconds']:.3f}",
            f"{row['of_matrix_rate']:.1%}",
            f"{row['same_anchor']:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Multiply-accumulates of GIN with ResNet-50, as published and after each rewriting, counted by running it.

    python benchmarks/operations.py [--size PIXELS] [--record FILE]

Counts convolutions and matrix products on tensors without data. The image part is paid once per image, the expression
part once per expression. Each row adds a rewriting to those above it; the last is the form that a CPU trains.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from machine import describe_machine, input_size, record_file, write_record
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from export.rewrite import rewrite, rewritings_for
from export.rewrite.winner import ScoreFirst
from model.config import ModelConfig
from model.gin import GIN
from train.rewrite import rewrite_for_training

WORDS = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Multiply-accumulates of GIN with ResNet-50.")
    parser.add_argument("--size", type=input_size, default=320, metavar="PIXELS", help="input size (%(default)s)")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    network = GIN(ModelConfig(image_size=arguments.size), vocabulary_size=100).eval()
    counts: dict[str, dict[str, int]] = {"as published": count(network)}
    rewritings = rewritings_for("fp32")
    for number, name in enumerate(rewritings, start=1):
        counts[f"+ {name}"] = count(rewrite(network, rewritings[:number]))
    rewrite_for_training(network)
    counts["in training"] = count(network)
    table = Table("10^9 multiply-accumulates", "image part", "expression part", "together")
    for name, parts in counts.items():
        image, expression = parts["image"] / 1e9, parts["expression"] / 1e9
        table.add_row(name, f"{image:.2f}", f"{expression:.2f}", f"{image + expression:.2f}")
    Console().print(table)
    if arguments.record:
        record = describe_machine() | {"size": arguments.size, "words": WORDS, "multiply_accumulates": counts}
        write_record(arguments.record, record)
    return 0


@torch.inference_mode()
def count(network: GIN) -> dict[str, int]:
    """Multiply-accumulates of one image and of one expression about it."""
    network = network.to("meta")
    size = network.config.image_size
    with FlopCounterMode(display=False) as image_part:
        features = network.encode_image(torch.empty(1, 3, size, size, device="meta"))
    with FlopCounterMode(display=False) as expression_part:
        ids = torch.ones(1, WORDS, dtype=torch.int64, device="meta")
        lengths, encoder = torch.ones(1, dtype=torch.int64, device="meta"), network.expression
        expressions = encoder._read(encoder.embedding(ids), lengths)  # the device "meta" knows no autocast
        index = torch.zeros(1, dtype=torch.int64, device="meta")
        pyramid, expressions, _ = network.reason(features, expressions, index)
        if isinstance(network.head, ScoreFirst):
            sizes = [(level.shape[2], level.shape[3]) for level in pyramid]
            scores, cells = network.head.scores(pyramid, expressions)
            network.head.deltas_at(cells, sizes, scores.argmax(dim=1, keepdim=True))
        else:
            network.head(pyramid, expressions)
    return {"image": image_part.get_total_flops() // 2, "expression": expression_part.get_total_flops() // 2}


if __name__ == "__main__":
    sys.exit(main())

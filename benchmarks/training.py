"""Images per second of a training step, ours and in the authors' formulation, with GIN on ResNet-50.

    python benchmarks/training.py [--batch N] [--size PIXELS] [--repeats N] [--compile] [--record FILE]

One expression per image, as the authors train. All ways take steps in turn, round after round, so that a change of the
machine's speed meets them alike; the batches are in the host's memory beforehand. A CPU without instructions for bf16
is spared it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from machine import describe_machine, input_size, positive, record_file, write_record
from original_step import OriginalStep
from rich.console import Console
from rich.table import Table

from model.config import ModelConfig
from model.gin import GIN
from model.loss import LossConfig
from model.original import ARCHITECTURES
from train.config import OptimConfig
from train.data.dataset import Batch
from train.network import compile_network
from train.optimizer import build_optimizer
from train.rewrite import rewrite_for_training
from train.run import slow_on
from train.step import TrainingStep

WARM_UP = 2  # rounds
WORDS = 2_000  # in the vocabulary


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description="Images per second of a training step.")
    parser.add_argument("--batch", type=positive, default=16 if on_gpu else 4, metavar="N", help="images (%(default)s)")
    parser.add_argument("--size", type=input_size, default=320, metavar="PIXELS", help="input size (%(default)s)")
    parser.add_argument(
        "--repeats", type=positive, default=50 if on_gpu else 5, metavar="N", help="rounds (%(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="also bf16 with torch.compile")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    device = torch.device("cuda" if on_gpu else "cpu")
    batch = make_batch(arguments.batch, arguments.size)
    ways = make_ways(batch, arguments.size, device, arguments.compile)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + arguments.repeats):
        for name, take in ways.items():
            started = time.perf_counter()
            take()
            if on_gpu:
                torch.cuda.synchronize()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    rates = {name: arguments.batch / statistics.median(values) for name, values in seconds.items()}
    theirs = rates["the authors' formulation"]
    table = Table("step", "images/s", "ratio")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.2f}", f"{rate / theirs:.2f}")
    Console().print(table)
    if arguments.record:
        record = {"batch": arguments.batch, "size": arguments.size, "repeats": arguments.repeats, **describe_machine()}
        record |= {"images_per_second": rates, "ratio": {name: rate / theirs for name, rate in rates.items()}}
        write_record(arguments.record, record)
    return 0


def make_batch(count: int, size: int) -> Batch:
    """Made-up images with one expression each, on the host."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 300, (count, 2))
    boxes = np.concatenate((corners, corners + random.uniform(40, 300, (count, 2))), axis=1).astype(np.float32)
    batch = Batch(
        pixels=torch.from_numpy(random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)),
        ids=torch.from_numpy(random.integers(2, WORDS, (count, 8))),
        lengths=torch.from_numpy(random.integers(1, 9, count)),
        image_index=torch.arange(count),
        boxes=torch.from_numpy(boxes),
        image_sizes=torch.full((count, 2), 600),
        rows=torch.arange(count),
    )
    return batch.pin_memory() if torch.cuda.is_available() else batch


def make_ways(batch: Batch, size: int, device: torch.device, compiled: bool) -> dict[str, Callable[[], object]]:
    """Each takes one step."""
    levels = ARCHITECTURES[0].levels_at(size)

    def network() -> GIN:
        torch.manual_seed(0)
        return GIN(ModelConfig(image_size=size, pyramid_levels=levels), WORDS + 2).to(device)

    original = OriginalStep(network(), device)
    prepared = original.prepare(batch)
    ways: dict[str, Callable[[], object]] = {"the authors' formulation": lambda: original(prepared)}
    for precision in ("fp32",) if slow_on(device, "bf16") else ("fp32", "bf16"):
        for compile_it in (False, True) if compiled and precision == "bf16" else (False,):
            optim = OptimConfig(precision=precision)
            ours = network().train()
            if device.type == "cpu":
                rewrite_for_training(ours)
            ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if compile_it:
                compile_network(ours)
            step = TrainingStep(ours, build_optimizer(ours, optim), LossConfig(), optim, device)
            name = f"ours, {precision}" + (", compiled" if compile_it else "")
            ways[name] = lambda step=step: step([batch])  # type: ignore[misc]
    return ways


if __name__ == "__main__":
    sys.exit(main())

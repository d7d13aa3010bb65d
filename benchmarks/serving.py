"""What serving costs: requests per second and latency of `gin` over gRPC beside the bare network on the same cores.

    python benchmarks/serving.py [CKPT | --resnet50] [--seconds S] [--record FILE]

Closed loop at 1 to 64 callers, for pictures that the server has not seen, for one that it knows, and with eight
expressions per request; open loop (Poisson arrivals) at half and at twice the saturated rate. At one caller all ways,
the bare network among them, are measured in turn. The callers share the cores with the server. --resnet50 serves the
published network at 320 pixels, with random weights, which speed does not depend on.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from machine import CHECKPOINT, checkpoint_file, describe_machine, duration, record_file, write_record
from rich.console import Console
from rich.table import Table
from served import CALLS, TRITON, build_repository, example, in_blocks, summarise, timed, unseen

from client.errors import GroundingError
from client.library import Client
from export import onnx
from export.graphs import ANSWERS, INPUTS
from export.runtime import open_onnx
from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.gin import GIN
from serve import Server

BARE = "bare network"
CALLERS = (1, 2, 4, 8, 16, 32, 64)
BLOCKS = 6  # with one caller
SPLITS = 9  # times that an answer's parts are told apart, and that the saturated server is compared
TOLD = 1.5  # seconds until the server has told its counts
TARGETS = {"overhead_ms": 2.0, "eight_over_one": 3.5, "known_over_new": 0.45, "saturation_over_bare": 0.9}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="What serving costs.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "checkpoint", nargs="?", type=checkpoint_file, default=CHECKPOINT, metavar="CKPT", help="(%(default)s)"
    )
    which.add_argument("--resnet50", action="store_true", help="the published network with random weights")
    parser.add_argument("--seconds", type=duration, default=3, metavar="S", help="of each loop (%(default)s)")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = make_published(Path(folder) / "random.pth") if arguments.resnet50 else arguments.checkpoint
        figures = measure(Checkpoint.load(path), path, arguments.seconds)
    show(figures)
    if arguments.record:
        name = "ResNet-50 with random weights" if arguments.resnet50 else path.name
        record = {"checkpoint": name, "seconds": arguments.seconds}
        record |= {**describe_machine(onnxruntime=onnxruntime.__version__, triton=TRITON), **figures}
        write_record(arguments.record, record)
    return 0


def make_published(path: Path) -> Path:
    """A checkpoint of the published network, untrained, written to `path`."""
    torch.manual_seed(0)
    config, vocabulary = ModelConfig(), Checkpoint.load(CHECKPOINT).vocabulary
    Checkpoint(config, vocabulary, GIN(config, len(vocabulary)).state_dict()).save(path)
    return path


def measure(checkpoint: Checkpoint, path: Path, seconds: float) -> dict[str, Any]:
    """All figures; times in milliseconds, rates per second."""
    picture, expression = example()
    eight = [f"{expression} {'second ' * number}" for number in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        repository = build_repository(path, Path(folder), onnx.FORMAT)
        with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
            with Client(f"{server.address}:{server.grpc_port}") as client:
                ways: dict[str, Callable[[], Any]] = {
                    "new picture, 1 expression": lambda: client.ground(unseen(picture), expression),
                    "known picture, 1 expression": lambda: client.ground(picture, expression),
                    "new picture, 8 expressions": lambda: client.ground(unseen(picture), eight),
                }
                bare = bare_network(checkpoint, repository, picture, expression)
                alone = {name: summarise(times) for name, times in in_blocks(ways | {BARE: bare}, BLOCKS).items()}
                parts = split(server, ways["new picture, 1 expression"])
                closed = {
                    name: [closed_loop(way, callers, seconds) for callers in CALLERS] for name, way in ways.items()
                }
                way = ways["new picture, 1 expression"]
                peak = max(closed["new picture, 1 expression"], key=lambda row: row["per_second"])
                opened = [open_loop(way, share * peak["per_second"], seconds) for share in (0.5, 2.0)]
                saturation = [saturated(way, bare, int(peak["callers"]), seconds) for _ in range(SPLITS)]
            counts = read_counts(server)
    median = {name: row["median"] for name, row in alone.items()}
    ratios = {
        "overhead_ms": parts["rest"],
        "eight_over_one": median["new picture, 8 expressions"] / median["new picture, 1 expression"],
        "known_over_new": median["known picture, 1 expression"] / median["new picture, 1 expression"],
        "saturation_over_bare": statistics.median(saturation),
    }
    return {
        "one_caller": alone,
        "split": parts,
        "closed_loop": closed,
        "open_loop": opened,
        "ratios": ratios,
        "counts": counts,
    }


def bare_network(
    checkpoint: Checkpoint, repository: Path, picture: bytes, expression: str
) -> Callable[[], dict[str, np.ndarray]]:
    """The whole network in ONNX Runtime, asked the same without a server."""
    run = open_onnx(next((repository / "gin_onnx").glob("*/model.onnx")), INPUTS, ANSWERS)
    pixels, size = checkpoint.preparation.image(picture)
    ids, lengths = checkpoint.preparation.expressions([expression])
    arrays = pixels[None], ids, lengths, np.zeros(1, dtype=np.int64), np.array([size], dtype=np.int64)
    return lambda: run(dict(zip(INPUTS, arrays, strict=True)))


def split(server: Server, way: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of the parts of an answer: preparation and network, as the server counts them, and what is left;
    means of some calls, the medians of many such means."""

    def counted() -> tuple[float, float]:
        time.sleep(TOLD)
        counts = read_counts(server)
        preparation, image, expression = (
            sum(value for name, value in counts.items() if name.startswith(f"gin_{part}_duration_us"))
            for part in ("preparation", "image", "expression")
        )
        return preparation / 1000, (image + expression) / 1000

    calls = BLOCKS * CALLS
    parts: dict[str, list[float]] = {"whole": [], "preparation": [], "network": [], "rest": []}
    before = counted()
    for _ in range(SPLITS):
        whole = statistics.mean(timed(way) for _ in range(calls))
        after = counted()
        preparation, network = ((end - start) / calls for start, end in zip(before, after, strict=True))
        before = after
        for name, value in zip(parts, (whole, preparation, network, whole - preparation - network), strict=True):
            parts[name].append(value)
    return {name: statistics.median(values) for name, values in parts.items()}


def closed_loop(way: Callable[[], Any], callers: int, seconds: float) -> dict[str, float]:
    """Callers who ask again as soon as they are answered."""
    end = time.monotonic() + seconds

    def call(_: int) -> list[tuple[float, bool]]:
        seen = []
        while time.monotonic() < end:
            seen.append(ask(way, time.perf_counter()))
        return seen

    started = time.monotonic()
    with ThreadPoolExecutor(callers) as pool:
        seen = [pair for pairs in pool.map(call, range(callers)) for pair in pairs]
    return {"callers": callers, **described(seen, time.monotonic() - started)}


def saturated(way: Callable[[], Any], bare: Callable[[], Any], callers: int, seconds: float) -> float:
    """What so many callers are answered, over what the bare network does in a loop right after."""
    rate = closed_loop(way, callers, seconds)["per_second"]
    return rate * statistics.mean(timed(bare) for _ in range(BLOCKS * CALLS)) / 1000


def open_loop(way: Callable[[], Any], rate: float, seconds: float) -> dict[str, float]:
    """Requests that come at random times whether or not earlier ones are answered; latency counts from when they were
    due."""
    draw = random.Random(0)
    times, now = [], 0.0
    while (now := now + draw.expovariate(rate)) < seconds:
        times.append(now)
    started = time.perf_counter()

    def call(due: float) -> tuple[float, bool]:
        time.sleep(max(0.0, started + due - time.perf_counter()))
        return ask(way, started + due)

    with ThreadPoolExecutor(256) as pool:
        seen = list(pool.map(call, times))
    return {"asked_per_second": round(rate, 1), **described(seen, time.perf_counter() - started)}


def ask(way: Callable[[], Any], since: float) -> tuple[float, bool]:
    """Milliseconds since then when the answer is there, and whether it is one."""
    try:
        way()
    except GroundingError:
        return 1000 * (time.perf_counter() - since), False
    return 1000 * (time.perf_counter() - since), True


def described(seen: Sequence[tuple[float, bool]], seconds: float) -> dict[str, float]:
    """Rate and latency of what was answered, and how many were refused."""
    answered = [milliseconds for milliseconds, good in seen if good]
    times = summarise(answered) if answered else {}
    return {"per_second": round(len(answered) / seconds, 2), **times, "refused": len(seen) - len(answered)}


def read_counts(server: Server) -> dict[str, float]:
    """What the server counted of `gin`."""
    with urllib.request.urlopen(f"http://{server.address}:{server.metrics_port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("gin_") and 'model="gin"' in line
    }


def show(figures: dict[str, Any]) -> None:
    """Tables on screen."""
    console = Console(width=110 if not sys.stdout.isatty() else None)
    table = Table("one caller", "median ms", "p90", "p99")
    for name, row in figures["one_caller"].items():
        table.add_row(name, *(f"{row[key]:.2f}" for key in ("median", "p90", "p99")))
    console.print(table)
    parts = ", ".join(f"{name} {value:.2f} ms" for name, value in figures["split"].items())
    console.print(f"new picture, 1 expression: {parts}")
    table = Table("loop", "callers or rate", "per second", "median ms", "p90", "p99", "refused")
    loops = [(name, row) for name, rows in figures["closed_loop"].items() for row in rows]
    loops += [("open: new picture, 1 expression", row) for row in figures["open_loop"]]
    for name, row in loops:
        load = row.get("callers", row.get("asked_per_second"))
        times = (f"{row.get(key, float('nan')):.1f}" for key in ("median", "p90", "p99"))
        table.add_row(name, str(load), f"{row['per_second']:.1f}", *times, str(row["refused"]))
    console.print(table)
    for name, value in figures["ratios"].items():
        console.print(f"{name}: {value:.2f} (target {TARGETS[name]})")


if __name__ == "__main__":
    sys.exit(main())

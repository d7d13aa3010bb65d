"""Whether a server keeps its memory and its promises under load for half an hour.

    python benchmarks/soak.py [CKPT] [--minutes M] [--callers N] [--record FILE]

Callers ask `gin` over gRPC without a pause: pictures that the server has not seen and pictures that it knows, one
expression or eight. Every answer about a known picture is compared with the first. Memory is the proportional set size
of the server and all its processes; its growth is from the third minute, when the cache of features is full, to the
last.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from machine import CHECKPOINT, checkpoint_file, describe_machine, positive, record_file, write_record
from rich.console import Console
from served import TRITON, build_repository, example, summarise, unseen

from client.errors import GroundingError
from client.library import Client
from export import onnx
from serve import Server
from serve.processes import living_children

SETTLED = 2  # minutes until caches are full and allocators have what they need
BETWEEN = 5.0  # seconds between looks at the memory


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Whether a server keeps its memory and its promises under load.")
    parser.add_argument(
        "checkpoint", nargs="?", type=checkpoint_file, default=CHECKPOINT, metavar="CKPT", help="(%(default)s)"
    )
    parser.add_argument("--minutes", type=positive, default=30, metavar="M", help="of load (%(default)s)")
    parser.add_argument("--callers", type=positive, default=8, metavar="N", help="who ask at once (%(default)s)")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    if arguments.minutes <= SETTLED + 1:
        parser.error(f"--minutes is {arguments.minutes}; it must be more than {SETTLED + 1}")
    with tempfile.TemporaryDirectory() as folder:
        repository = build_repository(arguments.checkpoint, Path(folder), onnx.FORMAT)
        with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
            figures = load(server, arguments.callers, arguments.minutes)
    Console().print_json(json.dumps(figures))
    if arguments.record:
        record = {"checkpoint": arguments.checkpoint.name, "callers": arguments.callers, "minutes": arguments.minutes}
        record |= describe_machine(onnxruntime=onnxruntime.__version__, triton=TRITON) | figures
        write_record(arguments.record, record)
    return 0


def load(server: Server, callers: int, minutes: int) -> dict[str, Any]:
    """Ask for so long; what was answered, what failed, and the server's memory by minute in MiB."""
    picture, expression = example()
    eight = [f"{expression} {'second ' * number}" for number in range(8)]
    end = time.monotonic() + 60 * minutes
    failures: list[str] = []
    memory: list[list[float]] = [[] for _ in range(minutes)]
    with Client(f"{server.address}:{server.grpc_port}") as client:
        expected = [answer.box for answer in client.ground(picture, eight)]

        def call(seed: int) -> list[float]:
            draw = random.Random(seed)
            times = []
            while time.monotonic() < end:
                known, asked = draw.random() < 0.5, eight if draw.random() < 0.25 else [expression]
                started = time.perf_counter()
                try:
                    answers = client.ground(picture if known else unseen(picture), asked)
                except GroundingError as error:
                    failures.append(str(error))
                    continue
                times.append(1000 * (time.perf_counter() - started))
                boxes = np.array([answer.box for answer in answers])
                if known and not np.allclose(boxes, expected[: len(asked)], atol=0.05):
                    failures.append(f"another answer: {boxes.tolist()}")
            return times

        def watch() -> None:
            while (left := end - time.monotonic()) > 0:
                memory[min(int(minutes - left / 60), minutes - 1)].append(resident(server.pid) / 2**20)
                time.sleep(min(BETWEEN, left))

        watching = threading.Thread(target=watch)
        watching.start()
        with ThreadPoolExecutor(callers) as pool:
            times = [value for values in pool.map(call, range(callers)) for value in values]
        watching.join()
    by_minute = [round(statistics.median(values), 1) for values in memory]
    return {
        "answered": len(times),
        "failed": len(failures),
        "failures": sorted(set(failures))[:10],
        "milliseconds": summarise(times),
        "memory_mib": by_minute,
        "memory_growth": round(by_minute[-1] / by_minute[SETTLED] - 1, 4),
    }


def resident(pid: int) -> int:
    """Bytes of a process and of those that it started; what several share counts once (PSS)."""
    total = 0
    for process in (pid, *living_children(pid)):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


if __name__ == "__main__":
    sys.exit(main())

"""Time from SIGKILL of a process of a running server to the next right answer, for every process in turn.

    python benchmarks/recovery.py [CKPT] [--kills N] [--record FILE]

A client asks without a pause and without retries. Prints a table and, with --record, writes the figures with machine,
versions and commit as JSON.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from machine import CHECKPOINT, checkpoint_file, describe_machine, positive, record_file, write_record
from rich.console import Console
from rich.table import Table
from served import TRITON, build_repository, example
from tritonclient.utils import InferenceServerException

from export import onnx
from serve.processes import living_children, model_processes

VICTIMS = ("gin", "server")  # whose processes answer
PORTS = [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "health")]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Time to the next right answer after a process was killed.")
    parser.add_argument("checkpoint", nargs="?", type=checkpoint_file, default=CHECKPOINT, metavar="CKPT")
    parser.add_argument("--kills", type=positive, default=10, metavar="N", help="of each process (default: 10)")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        repository = build_repository(arguments.checkpoint, Path(folder), onnx.FORMAT)
        with running(repository) as (process, url):
            seconds = {name: [kill(process.pid, name, url) for _ in range(arguments.kills)] for name in VICTIMS}
    rows = {name: summarise(values) for name, values in seconds.items()}
    table = Table("killed", "median s", "p90", "longest")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in row.values()))
    Console().print(table)
    if arguments.record:
        record = {"kills": arguments.kills, **describe_machine(triton=TRITON)}
        write_record(arguments.record, record | {"seconds_to_right_answer": rows})
    return 0


@contextmanager
def running(repository: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """`python -m serve`, ready, and its gRPC address."""
    command = [sys.executable, "-m", "serve", *PORTS, "--repository", str(repository)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"grpc://([\d.]+:\d+)", process.stdout.readline())
        assert found is not None, "the server did not start"
        yield process, found[1]
    finally:
        process.terminate()
        process.wait()


def server_pid(pid: int) -> int:
    """Triton's process under the command's."""
    return next(child for child, line in living_children(pid).items() if line[0].endswith("bin/tritonserver"))


def model_pid(server: int, name: str) -> int:
    """The process of a model under Triton's."""
    return next(pid for pid, model in model_processes(server).items() if model == name)


def kill(pid: int, name: str, url: str) -> float:
    """Kill one process; returns the seconds until the answer from before came again."""
    question = make_question()
    with triton.InferenceServerClient(url) as client:
        expected = client.infer("gin", question, client_timeout=60).as_numpy("BOX")
        server = server_pid(pid)
        os.kill(server if name == "server" else model_pid(server, name), signal.SIGKILL)
        started = time.monotonic()
        while True:
            try:
                box = client.infer("gin", question, client_timeout=5).as_numpy("BOX")
            except InferenceServerException:
                time.sleep(0.01)
                continue
            if not np.array_equal(box, expected):
                raise SystemExit(f"after {name} was killed the answer is {box}, not {expected}")
            seconds = time.monotonic() - started
            break
    time.sleep(2)  # the supervisor's own question must be answered too, or the next death adds to this one
    return seconds


def make_question() -> list[triton.InferInput]:
    """The inputs of one request about a generated scene."""
    picture, expression = example()
    inputs = []
    for name, value in (("IMAGE", picture), ("EXPRESSION", expression.encode())):
        array = np.array([value], dtype=np.object_)
        inputs.append(triton.InferInput(name, [1], "BYTES").set_data_from_numpy(array))
    return inputs


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Median, p90 and the longest, in seconds."""
    median, p90 = np.percentile(values, (50, 90))
    return {"median": round(float(median), 3), "p90": round(float(p90), 3), "longest": round(max(values), 3)}


if __name__ == "__main__":
    sys.exit(main())

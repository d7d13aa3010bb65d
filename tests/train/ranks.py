"""Processes that have imported PyTorch before they start, which takes longer than most of what is tested in them.

They are forked from a server that has nothing else in it; torchrun's own agent starts and restarts ranks from there.
"""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

PATIENCE = 300  # seconds that a run may take
ON_THE_CPU = {"CUDA_VISIBLE_DEVICES": ""}  # there are more ranks than GPUs, and what they learn is compared bit by bit
multiprocessing.set_forkserver_preload(["tests.train.faulty_run", "train.evaluate"])
server = multiprocessing.get_context("forkserver")


def alone(main: Callable[..., int], *arguments: Any, largest_file: int | None = None) -> CompletedProcess[str]:
    """A process that ends with what main(*arguments) returns. largest_file: bytes that the system lets it write."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdout", "stderr")]
        process = server.Process(target=_begin, args=(main, arguments, streams, largest_file))
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{main.__module__} still ran after {PATIENCE} seconds: {streams[1].read_text()}")
        return CompletedProcess(arguments, process.exitcode, *(stream.read_text() for stream in streams))


def _begin(main: Callable[..., int], arguments: tuple[Any, ...], streams: list[Path], largest_file: int | None) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    _end(main, *arguments)


def _end(main: Callable[..., int], *arguments: Any) -> None:
    os.environ |= ON_THE_CPU
    sys.exit(main(*arguments))


def together(main: Callable[..., int], *arguments: Any, processes: int) -> CompletedProcess[str]:
    """As many ranks, restarted once, as `torchrun --standalone --max-restarts=1` does it."""
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    }
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="test", max_restarts=1,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="forkserver",
            logs_specs=DefaultLogsSpecs(folder, redirects=Std.ALL),
        )  # fmt: skip
        code = 0
        try:
            elastic_launch(config, _end)(main, *arguments)
        except ChildFailedError:
            code = 1
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        logs = sorted(Path(folder).rglob("*.log"))
        said = ["".join(log.read_text() for log in logs if log.stem == name) for name in ("stdout", "stderr")]
    return CompletedProcess(arguments, code, *said)

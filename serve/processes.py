"""The processes that a server runs its models in, as Linux shows them."""

import contextlib
import re
from pathlib import Path


def command_line(pid: int) -> list[str]:
    """Of a process; empty if it has died, also where its parent has not waited for it yet."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return line.rstrip("\0").split("\0") if line else []


def living_children(pid: int) -> dict[int, list[str]]:
    """The command line of each process that a process started and that has not died."""
    pids: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # threads end while they are looked at
            pids += map(int, children.read_text().split())
    return {child: line for child in pids if (line := command_line(child))}


def model_processes(pid: int) -> dict[int, str]:
    """The model that each living process under a server runs."""
    lines = living_children(pid)
    return {child: model for child, line in lines.items() if (model := _model(line))}


def _model(line: list[str]) -> str:
    """What a process of Triton's Python backend runs: its command line has a file of the model and the instance, such
    as gin_0_0; nothing for another process."""
    if not line[0].endswith("triton_python_backend_stub") or len(line) < 2:
        return ""
    model = Path(line[1]).parent.parent.name  # MODEL/VERSION/FILE
    return model if any(re.fullmatch(rf"{re.escape(model)}_\d+(_\w+)?", word) for word in line[2:]) else ""

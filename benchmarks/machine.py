"""What the benchmarks share: their arguments, and records of figures with the machine, the versions and the commit."""

import json
import os
import platform
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
if sys.path[0] == str(HERE):  # where Python looks first, and would take export.py for the package of that name
    sys.path[0] = str(HERE.parent)
    sys.path.append(str(HERE))

from model.checkpoint import Checkpoint  # noqa: E402 - found by now
from model.config import ModelConfig  # noqa: E402

CHECKPOINT = HERE.parent / "checkpoints" / "demo.pth"


def positive(text: str) -> int:
    """An argument that says how many."""
    if (number := int(text)) < 1:
        raise ArgumentTypeError(f"{text} is not 1 or more")
    return number


def duration(text: str) -> float:
    """An argument in seconds."""
    if not 0 < (seconds := float(text)) < float("inf"):
        raise ArgumentTypeError(f"{text} is not more than 0")
    return seconds


def input_size(text: str) -> int:
    """An argument in pixels: a size that the published network takes."""
    size = int(text)
    try:
        ModelConfig(image_size=size)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return size


def checkpoint_file(text: str) -> Path:
    """An argument that names a checkpoint."""
    try:
        Checkpoint.load(text)
    except (OSError, ValueError) as error:
        raise ArgumentTypeError(str(error)) from None
    return Path(text)


def record_file(text: str) -> Path:
    """An argument that names a file to be written after all measuring; its folder is made."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentTypeError(str(error)) from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ArgumentTypeError(f"{text} cannot be written")
    return path


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write figures as JSON."""
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def describe_machine(**versions: str) -> dict[str, Any]:
    """Plain data for a record. versions: of packages besides Python and PyTorch."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    command = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "machine": {"cpu": cpu, "cores": cores, "threads": threads, "gpu": gpu},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions},
    }

"""What the benchmarks of a server share: what it serves, what it is asked, and how its times are told."""

import io
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.command import export_to_repository
from export.formats import Format
from serve.repository import DEFAULT
from train.data.drawing import draw_scene
from train.data.scenes import make_scene

TRITON = "2.51 (nvidia-pytriton 0.7.0)"
CALLS = 20  # in a block


def build_repository(checkpoint: Path, folder: Path, *kinds: Format) -> Path:
    """A repository in a folder, with the committed configurations and a checkpoint exported in these formats."""
    repository = folder / "triton_repo"
    shutil.copytree(DEFAULT, repository, ignore=shutil.ignore_patterns("[0-9]*", "warmup"))
    for kind in kinds:
        export_to_repository(checkpoint, kind, repository)
    return repository


def example() -> tuple[bytes, str]:
    """A generated picture as JPEG bytes, and one of its expressions."""
    scene, described, random = make_scene(seed=2026, number=0, expressions=4)
    file = io.BytesIO()
    draw_scene(scene, random).save(file, "JPEG", quality=90)
    return file.getvalue(), described[0][0]


def unseen(picture: bytes) -> bytes:
    """The same JPEG with other bytes after its end, so that the server cannot know it."""
    return picture + secrets.token_bytes(8)


def in_blocks(ways: dict[str, Callable[[], Any]], blocks: int) -> dict[str, list[float]]:
    """Milliseconds of each way, after a block that warms it up: some calls of one and then of the next, as the threads
    of ONNX Runtime and PyTorch spin for a while after a call, in the way of what comes then."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for block in range(1 + blocks):
        for name, way in ways.items():
            times = [timed(way) for _ in range(CALLS)]
            samples[name] += times if block else []
    return samples


def timed(way: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    way()
    return 1000 * (time.perf_counter() - started)


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Median, p90 and p99 of milliseconds."""
    median, p90, p99 = np.percentile(values, (50, 90, 99))
    return {"median": round(float(median), 3), "p90": round(float(p90), 3), "p99": round(float(p99), 3)}

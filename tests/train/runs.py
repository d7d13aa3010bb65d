"""Runs of the training command that faults come into, and what they leave."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import torch

from model.checkpoint import Checkpoint
from tests.train.faulty_run import main_with
from tests.train.ranks import alone, together

SETTINGS = [
    "model.backbone=shufflenet_v2_x0_5", "model.image_size=64", "model.word_width=16", "model.language_width=32",
    "model.branch_width=8", "model.map_width=16", "model.pyramid_width=16", "model.head_width=16",
    "data.batch_size=2", "data.workers=0", "data.scenes.train=16", "data.scenes.val=3", "data.scenes.expressions=2",
    "data.augment.flip=0.5", "optim.epochs=2", "save_every=3", "optim.precision=fp32",
]  # fmt: skip


def arguments(scenes: Path, out: Path, *more: str) -> list[str]:
    """Of the command, for a small run."""
    return [*SETTINGS, f"data.scenes.folder={scenes}", f"out={out}", *more]


def run(
    scenes: Path, out: Path, *more: str, fault: str = "", processes: int = 1, largest_file: int | None = None
) -> CompletedProcess[str]:
    """A run; fault: "FAULT PLACE COUNT RANK" of `faulty_run`, or none. largest_file: as `alone`."""
    if processes == 1:
        return alone(main_with, fault, arguments(scenes, out, *more), largest_file=largest_file)
    return together(main_with, fault, arguments(scenes, out, *more), processes=processes)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """What a finished run has learned."""
    last = Checkpoint.load(out / "last.pth")
    assert last.training is not None
    assert last.training["epoch"] == 2
    return last.weights


def read(path: Path) -> list[dict]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether weights agree in every bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

"""`train.run` that a fault strikes.

FAULT is a signal's name, "stall", or "nan3" for three losses in a row that are not numbers. It strikes rank RANK as
PLACE ("step", "save" or "evaluation") is come by for the COUNT-th time, in a process that torchrun has not restarted.
A save is struck between writing and renaming.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import model.checkpoint
import train.trainer
from train.run import main
from train.step import StepResult, TrainingStep


def strike(fault: str) -> None:
    """Do it to this process."""
    if fault == "stall":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # else torchrun waits for half a minute before it kills
        time.sleep(3600)
    os.kill(os.getpid(), getattr(signal, fault))


def struck(function: Callable[..., Any], fault: str, count: int) -> Callable[..., Any]:
    """The function, before whose count-th call the fault strikes."""
    calls = 0

    def call(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            strike(fault)
        return function(*arguments, **more)

    return call


def poisoned(first: int, last: int) -> Callable[..., StepResult]:
    """A training step whose loss is NaN from the first to the last of the numbered calls."""
    calls = 0
    step, losses = TrainingStep.__call__, TrainingStep._losses

    def call(self: TrainingStep, batches: Any) -> StepResult:
        nonlocal calls
        calls += 1
        poison = float("nan") if first <= calls <= last else 1.0

        def spoil(self: TrainingStep, batch: Any) -> Any:
            result = losses(self, batch)
            return result._replace(total=result.total * torch.tensor(poison))

        TrainingStep._losses = spoil  # type: ignore[method-assign]
        return step(self, batches)

    return call


def main_with(fault: str, arguments: list[str]) -> int:
    """The command, struck by "FAULT PLACE COUNT RANK", or by nothing; returns its exit code."""
    if fault:
        kind, place, count, rank = fault.split()
        if os.environ.get("RANK", "0") == rank and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            prepare(kind, place, int(count))
    return main(arguments)


def main_slow_to_save(out: Path, arguments: list[str]) -> int:
    """The command, asked to stop at its second step, whose first rank takes a while to save. Every rank says, as it
    ends, whether that is done."""

    def replace(*arguments: Any) -> None:
        time.sleep(2)
        rename(*arguments)

    rename = os.replace
    if os.environ["RANK"] == "0":
        model.checkpoint.os.replace = replace  # type: ignore[attr-defined]
    prepare("SIGTERM", "step", 2)
    code = main(arguments)
    print("saved" if (out / "last.pth").exists() else "not saved")
    return code - 128 - signal.SIGTERM


def prepare(fault: str, place: str, count: int) -> None:
    """Let it strike this process."""
    if fault.startswith("nan"):
        TrainingStep.__call__ = poisoned(count, count + int(fault[3:]) - 1)  # type: ignore[method-assign]
    elif place == "step":
        TrainingStep.__call__ = struck(TrainingStep.__call__, fault, count)  # type: ignore[method-assign]
    elif place == "save":
        model.checkpoint.os.replace = struck(os.replace, fault, count)  # type: ignore[attr-defined]
    else:
        train.trainer.evaluate = struck(train.trainer.evaluate, fault, count)  # type: ignore[attr-defined]

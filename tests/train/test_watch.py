"""Steps that were left out: counted in the order they came in, however seldom anybody looks."""

from pathlib import Path

import pytest
import torch

from tests.train.runs import read
from train.step import StepResult
from train.watch import Diverged, StepWatch


def watch(log: Path, flags: list[bool]) -> StepWatch:
    """Of the fifth epoch, whose steps were taken or not; three in a row are too many."""
    watch = StepWatch(log, 3, torch.device("cpu"))
    for step, taken in enumerate(flags):
        watch.add(4, step, StepResult(torch.ones(4), torch.tensor(taken)), [step])
    return watch


def test_left_out(tmp_path: Path) -> None:
    """Each is logged with its epoch and step, both from 1; the last ones go on being counted."""
    watched = watch(tmp_path / "log", [False, False, True, False, False])
    assert watched.look() == 1
    assert watched.skipped == 4
    assert [(line["epoch"], line["step"]) for line in read(tmp_path / "log")] == [(5, 1), (5, 2), (5, 4), (5, 5)]
    assert watched.state_dict()["in_a_row"] == 2


def test_too_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    """Also where steps that were taken follow before the look."""
    with pytest.raises(Diverged, match="4 steps in a row"):
        watch(tmp_path / "log", [True, False, False, False, False, True, True]).look()

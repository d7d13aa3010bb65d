"""A run that was killed, asked to stop, or met losses that are not numbers."""

import shutil
import signal
from pathlib import Path

import pytest

from model.checkpoint import Checkpoint
from tests.train.runs import arguments, read, run, same, weights
from train.run import main

PROCESSES = 1  # of the run that nothing happens to


@pytest.mark.parametrize(
    "fault", ["SIGKILL step 2 0", "SIGKILL step 14 0", "SIGKILL save 5 0", "SIGKILL evaluation 1 0"]
)
def test_killed_and_resumed(untouched: Path, scenes: Path, tmp_path: Path, fault: str) -> None:
    """Killed in a step, in writing a checkpoint or in evaluation, then resumed: the same weights and history, bit by
    bit, and nothing is left lying about."""
    out = tmp_path / "run"
    assert run(scenes, out, fault=fault).returncode == -signal.SIGKILL
    done = run(scenes, out, "resume=true")
    assert done.returncode == 0, done.stderr
    assert same(weights(out), weights(untouched))
    for one, other in zip(read(out / "history.jsonl"), read(untouched / "history.jsonl"), strict=True):
        assert (one["losses"], one["val"]) == (other["losses"], other["val"])
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_asked_to_stop(untouched: Path, scenes: Path, tmp_path: Path, name: str) -> None:
    """It ends with the code a shell expects, saved where it was, and says how to go on."""
    out = tmp_path / "run"
    done = run(scenes, out, fault=f"{name} step 5 0")
    assert done.returncode == 128 + getattr(signal, name)
    assert "resume=true" in done.stderr
    last = Checkpoint.load(out / "last.pth")
    assert last.training is not None
    assert last.training["position"] in (10, 12)  # the step it came in, or the next
    assert run(scenes, out, "resume=true").returncode == 0
    assert same(weights(out), weights(untouched))


def test_a_run_is_not_overwritten(untouched: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Starting again in the same folder is refused, with the two ways on; a finished run that is resumed is left as it
    is, and said to be finished."""
    before = (untouched / "last.pth").read_bytes()
    assert main(arguments(scenes, untouched)) == 2
    message = capsys.readouterr().err
    assert "resume=true" in message
    assert len(message.splitlines()) == 1
    assert main(arguments(scenes, untouched, "resume=true")) == 0
    assert "epoch 2 of 2 is done" in capsys.readouterr().err
    assert (untouched / "last.pth").read_bytes() == before


def test_another_run_is_not_resumed(untouched: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another network, other data, another seed and another optimisation are named."""
    rates = ["optim.lr=0.5", "optim.betas=[0.9, 0.999]", "optim.weight_decay=0.1", "optim.backbone_lr=0.1"]
    changes = {
        "last.pth is of a run of another network: map_width (16 there, 32 here)": ["model.map_width=32"],
        "16 samples": ["data.scenes.train=8"],
        "a run with seed=0, not 1": ["seed=1"],
        "optim.lr (0.002 there, 0.5 here), optim.betas ((0.9, 0.99) there, (0.9, 0.999) here), optim.weight_decay "
        "(0.01 there, 0.1 here), optim.backbone_lr (1.0 there, 0.1 here)": rates,
        "optim.schedule (cosine there, published here), optim.patience (2 there, 7 here), optim.freeze_norm "
        "(False there, True here)": ["optim.schedule=published", "optim.patience=7", "optim.freeze_norm=true"],
    }
    before = (untouched / "last.pth").read_bytes()
    for named, change in changes.items():
        assert main(arguments(scenes, untouched, "resume=true", "optim.epochs=3", *change)) == 2
        assert named in capsys.readouterr().err
    assert (untouched / "last.pth").read_bytes() == before


def test_full_disk(untouched: Path, scenes: Path, tmp_path: Path) -> None:
    """A checkpoint that cannot be written whole leaves the one before, and the error says so."""
    out = tmp_path / "run"
    shutil.copytree(untouched, out)
    before = (out / "last.pth").read_bytes()
    done = run(scenes, out, "resume=true", "optim.epochs=3", largest_file=len(before) // 2)
    assert done.returncode == 2
    assert "last.pth could not be written" in done.stderr
    assert "the previous one is kept" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (out / "last.pth").read_bytes() == before
    assert not list(out.glob(".*"))


def test_too_many_in_a_row(scenes: Path, tmp_path: Path) -> None:
    """The run ends with one line and exit code 1; the last checkpoint holds finite weights."""
    done = run(scenes, tmp_path / "run", "optim.skips_in_a_row=4", fault="nan4 step 11 0")
    assert done.returncode == 1
    assert "4 steps in a row" in done.stderr.splitlines()[-1]
    last = Checkpoint.load(tmp_path / "run" / "last.pth")
    assert all(tensor.isfinite().all() for tensor in last.weights.values())

"""Runs on two processes of which one dies, hangs or meets losses that are not numbers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.checkpoint import Checkpoint
from tests.train.faulty_run import main_slow_to_save
from tests.train.ranks import ON_THE_CPU, together
from tests.train.runs import arguments, read, run, same, weights

PROCESSES = 2  # of the run that nothing happens to


@pytest.mark.parametrize("fault", ["SIGKILL step 6 1", "SIGTERM step 6 1", "SIGTERM step 8 1"])
def test_torchrun_restarts(untouched: Path, scenes: Path, tmp_path: Path, fault: str) -> None:
    """One of two ranks dies, or is asked to stop within an epoch or in its last step: torchrun restarts both, and they
    learn what they would have."""
    done = run(scenes, tmp_path / "run", fault=fault, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stopped by SIGTERM") == (2 if "SIGTERM" in fault else 0)
    assert same(weights(tmp_path / "run"), weights(untouched))


def test_a_restart_does_not_overwrite(untouched: Path, scenes: Path) -> None:
    """A folder that another launch filled is refused again by the ranks that torchrun restarts."""
    before = {path: path.read_bytes() for path in untouched.iterdir() if path.is_file()}
    done = run(scenes, untouched, "optim.epochs=3", processes=2)
    assert done.returncode == 1
    assert "holds a run already" in done.stderr
    assert {path: path.read_bytes() for path in untouched.iterdir() if path.is_file()} == before


def test_torchrun_is_asked_to_stop(scenes: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun itself: both ranks save at the same step and end, and the run goes on from there."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "train.run"]
    command += arguments(scenes, out, "optim.epochs=500")
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ON_THE_CPU
    started = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[2]
    )
    while not (out / "last.pth").exists():
        assert started.poll() is None
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    _, stderr = started.communicate(timeout=60)
    assert started.returncode != 0
    assert stderr.count("stopped by SIGTERM") == 2
    last = Checkpoint.load(out / "last.pth").training
    assert last is not None
    done = run(scenes, out, "resume=true", f"optim.epochs={last['epoch'] + 1}", processes=2)
    assert done.returncode == 0, done.stderr


def test_nobody_ends_before_it_is_saved(scenes: Path, tmp_path: Path) -> None:
    """Asked to stop, the others wait until the first rank has saved: Slurm would end that one soon after them."""
    out = tmp_path / "run"
    done = together(main_slow_to_save, out, arguments(scenes, out, "save_every=1000"), processes=2)
    assert (done.returncode, done.stderr.count("stopped by SIGTERM")) == (0, 2)
    assert done.stdout.split("\n") == ["saved", "saved", ""]


def test_resumed_on_another_number_of_processes(scenes: Path, tmp_path: Path) -> None:
    """One process goes on where two were killed, after the samples that these had seen."""
    out = tmp_path / "run"
    run(scenes, out, "save_every=2", fault="SIGKILL step 3 0", processes=2)
    last = Checkpoint.load(out / "last.pth").training
    assert last is not None
    done = run(scenes, out, "resume=true")
    assert done.returncode == 0, done.stderr
    weights(out)


def test_losses_that_are_not_numbers(scenes: Path, tmp_path: Path) -> None:
    """On one of two ranks: both leave the steps out and go on, the rows are logged, the weights stay finite."""
    done = run(scenes, tmp_path / "run", fault="nan2 step 3 1", processes=2)
    assert done.returncode == 0, done.stderr
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    lines = read(tmp_path / "run" / "skipped.jsonl")
    places = [(line["epoch"], line["step"], line["rank"]) for line in lines]
    assert sorted(places) == [(1, 3, 0), (1, 3, 1), (1, 4, 0), (1, 4, 1)]
    assert all(len(line["rows"]) == 4 for line in lines)
    assert {line["loss"] for line in lines if line["rank"] == 1} == {"nan"}
    assert read(tmp_path / "run" / "history.jsonl")[0]["skipped"] == 2
    assert "2 steps left out" in done.stdout


@pytest.mark.usefixtures("untouched")  # the scenes are there, so that only the hanging takes long
@pytest.mark.parametrize("fault", ["stall step 4 1", "stall save 4 0"])
def test_hung_rank(scenes: Path, tmp_path: Path, fault: str) -> None:
    """A rank that hangs, in a step or in saving at an epoch's end, ends the job within its time-out instead of stalling
    it for ever."""
    done = run(scenes, tmp_path / "run", "timeout=10", fault=fault, processes=2)
    assert done.returncode == 0, done.stderr  # torchrun restarted it once
    weights(tmp_path / "run")

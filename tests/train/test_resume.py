"""A run that was killed, asked to stop, or met losses that are not numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint

FAULTY = Path(__file__).parent / "faulty_run.py"
SETTINGS = [
    "model.backbone=shufflenet_v2_x0_5", "model.image_size=64", "model.word_width=16", "model.language_width=32",
    "model.branch_width=8", "model.map_width=16", "model.pyramid_width=16", "model.head_width=16",
    "data.batch_size=2", "data.workers=0", "data.scenes.train=16", "data.scenes.val=3", "data.scenes.expressions=2",
    "data.augment.flip=0.5", "optim.epochs=2", "save_every=3", "optim.precision=fp32",
]  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of this file find their scenes."""
    return tmp_path_factory.mktemp("scenes")


def run(
    scenes: Path, out: Path, *more: str, fault: str = "", processes: int = 1, largest_file: int | None = None
) -> subprocess.CompletedProcess[str]:
    """A run; fault: "FAULT PLACE COUNT RANK" of `faulty_run`. largest_file: bytes that the system lets it write."""
    program = [str(FAULTY), *fault.split()] if fault else ["-m", "train.run"]
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "--max-restarts=1"]
    arguments = [*SETTINGS, f"data.scenes.folder={scenes}", f"out={out}", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FAULTY.parents[2])}
    if largest_file is not None:  # not by preexec_fn: gRPC, if it runs in this process, does not outlive a fork
        launcher = ["prlimit", f"--fsize={largest_file}", *launcher]
    return subprocess.run(
        [*launcher, *program, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=300
    )


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


@pytest.fixture(scope="module")
def untouched(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of runs that nothing happened to, on one process and on two."""
    folders = {}
    for processes in (1, 2):
        folders[processes] = tmp_path_factory.mktemp("untouched") / "run"
        done = run(scenes, folders[processes], processes=processes)
        assert done.returncode == 0, done.stderr
    assert not same(weights(folders[1]), weights(folders[2]))
    return folders


@pytest.mark.parametrize(
    "fault", ["SIGKILL step 2 0", "SIGKILL step 14 0", "SIGKILL save 5 0", "SIGKILL evaluation 1 0"]
)
def test_killed_and_resumed(untouched: dict[int, Path], scenes: Path, tmp_path: Path, fault: str) -> None:
    """Killed in a step, in writing a checkpoint or in evaluation, then resumed: the same weights and history, bit by
    bit, and nothing is left lying about."""
    out = tmp_path / "run"
    assert run(scenes, out, fault=fault).returncode == -signal.SIGKILL
    done = run(scenes, out, "resume=true")
    assert done.returncode == 0, done.stderr
    assert same(weights(out), weights(untouched[1]))
    for one, other in zip(read(out / "history.jsonl"), read(untouched[1] / "history.jsonl"), strict=True):
        assert (one["losses"], one["val"]) == (other["losses"], other["val"])
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("fault", ["SIGKILL step 6 1", "SIGTERM step 6 1", "SIGTERM step 8 1"])
def test_torchrun_restarts(untouched: dict[int, Path], scenes: Path, tmp_path: Path, fault: str) -> None:
    """One of two ranks dies, or is asked to stop within an epoch or in its last step: torchrun restarts both, and they
    learn what they would have."""
    done = run(scenes, tmp_path / "run", fault=fault, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stopped by SIGTERM") == (2 if "SIGTERM" in fault else 0)
    assert same(weights(tmp_path / "run"), weights(untouched[2]))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_asked_to_stop(untouched: dict[int, Path], scenes: Path, tmp_path: Path, name: str) -> None:
    """It ends with the code a shell expects, saved where it was, and says how to go on."""
    out = tmp_path / "run"
    done = run(scenes, out, fault=f"{name} step 5 0")
    assert done.returncode == 128 + getattr(signal, name)
    assert "resume=true" in done.stderr
    last = Checkpoint.load(out / "last.pth")
    assert last.training is not None
    assert last.training["position"] in (10, 12)  # the step it came in, or the next
    assert run(scenes, out, "resume=true").returncode == 0
    assert same(weights(out), weights(untouched[1]))


def test_torchrun_is_asked_to_stop(scenes: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun itself: both ranks save at the same step and end, and the run goes on from there."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "train.run"]
    command += [*SETTINGS, f"data.scenes.folder={scenes}", f"out={out}", "optim.epochs=500"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=FAULTY.parents[2])
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


def test_resumed_on_another_number_of_processes(scenes: Path, tmp_path: Path) -> None:
    """One process goes on where two were killed, after the samples that these had seen."""
    out = tmp_path / "run"
    run(scenes, out, "save_every=2", fault="SIGKILL step 3 0", processes=2)
    last = Checkpoint.load(out / "last.pth").training
    assert last is not None
    done = run(scenes, out, "resume=true")
    assert done.returncode == 0, done.stderr
    weights(out)


def test_a_run_is_not_overwritten(untouched: dict[int, Path], scenes: Path) -> None:
    """Starting again in the same folder is refused, with the two ways on; a finished run that is resumed is left as it
    is."""
    before = (untouched[1] / "last.pth").read_bytes()
    done = run(scenes, untouched[1])
    assert done.returncode == 2
    assert "resume=true" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert run(scenes, untouched[1], "resume=true").returncode == 0
    assert (untouched[1] / "last.pth").read_bytes() == before


def test_another_run_is_not_resumed(untouched: dict[int, Path], scenes: Path) -> None:
    """Another network and other data are named."""
    done = run(scenes, untouched[1], "resume=true", "optim.epochs=3", "model.map_width=32")
    assert done.returncode == 2
    assert "another network" in done.stderr
    done = run(scenes, untouched[1], "resume=true", "optim.epochs=3", "data.scenes.train=8")
    assert done.returncode == 2
    assert "16 samples" in done.stderr


def test_full_disk(scenes: Path, tmp_path: Path) -> None:
    """A checkpoint that cannot be written whole leaves the one before, and the error says so."""
    out = tmp_path / "run"
    assert run(scenes, out).returncode == 0
    before = (out / "last.pth").read_bytes()
    done = run(scenes, out, "resume=true", "optim.epochs=3", largest_file=len(before) // 2)
    assert done.returncode == 2
    assert "last.pth could not be written" in done.stderr
    assert "the previous one is kept" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (out / "last.pth").read_bytes() == before
    assert not list(out.glob(".*"))


def test_losses_that_are_not_numbers(scenes: Path, tmp_path: Path) -> None:
    """On one of two ranks: both leave the steps out and go on, the rows are logged, the weights stay finite."""
    done = run(scenes, tmp_path / "run", fault="nan2 step 3 1", processes=2)
    assert done.returncode == 0, done.stderr
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    lines = read(tmp_path / "run" / "skipped.jsonl")
    assert sorted((line["step"], line["rank"]) for line in lines) == [(3, 0), (3, 1), (4, 0), (4, 1)]
    assert all(len(line["rows"]) == 4 for line in lines)
    assert {line["loss"] for line in lines if line["rank"] == 1} == {"nan"}
    assert read(tmp_path / "run" / "history.jsonl")[0]["skipped"] == 2
    assert "2 steps left out" in done.stdout


def test_too_many_in_a_row(scenes: Path, tmp_path: Path) -> None:
    """The run ends with one line and exit code 1; the last checkpoint holds finite weights."""
    done = run(scenes, tmp_path / "run", "optim.skips_in_a_row=4", fault="nan4 step 11 0")
    assert done.returncode == 1
    assert "4 steps in a row" in done.stderr.splitlines()[-1]
    last = Checkpoint.load(tmp_path / "run" / "last.pth")
    assert all(tensor.isfinite().all() for tensor in last.weights.values())


def test_hung_rank(scenes: Path, tmp_path: Path) -> None:
    """A rank that hangs ends the job within its time-out instead of stalling it for ever."""
    done = run(scenes, tmp_path / "run", "timeout=5", fault="stall step 4 1", processes=2)
    assert done.returncode == 0, done.stderr  # torchrun restarted it once
    weights(tmp_path / "run")

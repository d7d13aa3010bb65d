"""Train a network.

    python -m train.run [--config FILE] [key=value ...]      (torchrun --nproc_per_node=N -m ... for N processes)

Without arguments: the demo configuration (configs/demo.yaml) on generated scenes. Writes `last.pth`, `best.pth`,
`history.jsonl`, TensorBoard's files and the settings into the folder `out`. A run that was killed goes on with
resume=true; what torchrun restarts goes on by itself, if the folder was begun since torchrun was started.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from model.checkpoint import load_plain
from model.command import run_command
from train.arguments import COMMAND, parse_arguments
from train.claim import claimed
from train.config import TrainConfig
from train.processes import by_first_rank, launch_store, process_group
from train.stop import Stopped
from train.trainer import Trainer
from train.watch import Diverged

CPUINFO = Path("/proc/cpuinfo")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 1 if the loss diverged, 2 for what the user can mend, 128 and the signal's
    number if it was asked to stop, in training after saving."""
    config = parse_arguments(argv)
    try:
        return run_command(COMMAND, lambda: _train(config), Diverged)
    except Stopped as stopped:
        print(f"{COMMAND}: {stopped}", file=sys.stderr)
        return stopped.exit_code


def _train(config: TrainConfig) -> None:
    with process_group(config.timeout) as device:
        train(config, device)


def train(config: TrainConfig, device: torch.device) -> None:
    """Go through the stages of a run, or those that are left of it."""
    if dist.get_rank() == 0 and slow_on(device, config.optim.precision):
        print(f"{COMMAND}: this CPU has no instructions for bf16; optim.precision=fp32 is faster", file=sys.stderr)
    planned = stages(config)
    with contextlib.ExitStack() as claim:
        by_first_rank(lambda: claim.enter_context(claimed(Path(config.out))))
        resume = by_first_rank(lambda: config.resume or _begun_by_this_launch(planned))
        for stage in planned:
            last = Path(stage.out) / "last.pth"
            goes_on = resume and last.exists()
            done = goes_on and _finished(last, stage)
            if not done:
                _refuse_begun(planned[planned.index(stage) + 1 :], stage)
            if dist.get_rank() == 0 and (done or len(planned) > 1):
                epochs = stage.optim.epochs
                what = f"epoch {epochs} of {epochs} is done" if done else "training"
                print(f"{COMMAND}: {stage.out} ({stage.model.image_size} pixels): {what}", file=sys.stderr)
            if not done:
                Trainer(stage, device, resume=goes_on).fit()


def slow_on(device: torch.device, precision: str) -> bool:
    """Whether a CPU has to compute in bf16 by other means: it has neither AMX, AVX-512 nor NEON for it."""
    return device.type == "cpu" and precision == "bf16" and "bf16" not in CPUINFO.read_text()


def _begun_by_this_launch(planned: list[TrainConfig]) -> bool:
    """Whether the run was begun by processes that torchrun has restarted. Raises ValueError where the folder holds a
    run of another launch; a restart after that would find it as well, so how often there were some says nothing."""
    store, folder = launch_store(), str(Path(planned[0].out).resolve())
    if store is not None and store.check([folder]):
        return True
    for stage in planned:
        if (Path(stage.out) / "last.pth").exists():
            raise ValueError(f"{stage.out} holds a run already: resume=true goes on with it, out=DIR begins another")
    if store is not None:
        store.set(folder, "begun")
    return False


def stages(config: TrainConfig) -> list[TrainConfig]:
    """The run's stages: one, or two where there is a resized one. Raises ValueError where the second could not begin
    with the weights of the first."""
    resized = config.resized
    if resized is None:
        return [config]
    model = dataclasses.replace(config.model, image_size=resized.image_size, pyramid_levels=resized.pyramid_levels)
    lower, higher = max(config.model.pyramid_levels), max(model.pyramid_levels)
    if higher > lower:
        raise ValueError(
            f"resized.pyramid_levels go up to {higher}, model.pyramid_levels only to {lower}: the second stage begins "
            "with the weights of the first, which has none for higher levels"
        )
    second = dataclasses.replace(
        config,
        model=model,
        data=dataclasses.replace(config.data, batch_size=resized.batch_size),
        optim=dataclasses.replace(config.optim, epochs=resized.epochs),
        backbone_weights=None,
        start=str(Path(config.out) / "best.pth"),
        resized=None,
        out=str(Path(config.out) / "resized"),
    )
    return [config, second]


def _refuse_begun(later: list[TrainConfig], stage: TrainConfig) -> None:
    """Raises ValueError where a later stage has begun with less than this stage comes to, as when it is given more
    epochs."""
    for begun in later:
        if (Path(begun.out) / "last.pth").exists():
            raise ValueError(
                f"{stage.out} has epochs to go, but {begun.out} began with the best of those before; move that folder "
                "away, and its stage begins anew"
            )


def _finished(last: Path, stage: TrainConfig) -> bool:
    training = load_plain(last).get("training") or {}
    return training.get("epoch", 0) >= stage.optim.epochs


if __name__ == "__main__":
    sys.exit(main())

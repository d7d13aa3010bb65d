"""Train a network.

    torchrun -m train.run [--config FILE] [key=value ...]      (--nproc_per_node=N before -m for N processes)

Without arguments: the demo configuration (configs/demo.yaml) on generated scenes. Writes `last.pth`, `best.pth` and
`log.jsonl` into the folder `out`.
"""

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from model.checkpoint import Checkpoint
from model.gin import GIN
from model.word_vectors import fill_embedding
from train.arguments import parse_arguments
from train.config import OptimConfig, TrainConfig
from train.data.annotations import InvalidData
from train.data.loading import Data, load_data
from train.loop import Diverged, evaluate, train_one_epoch
from train.progress import EpochProgress


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    config = parse_arguments(argv)
    device = start_process_group()
    try:
        train(config, device)
    except (InvalidData, Diverged, OSError, ValueError) as error:
        print(f"train.run: {error}", file=sys.stderr)
        return 1 if isinstance(error, Diverged) else 2
    finally:
        dist.destroy_process_group()
    return 0


def start_process_group() -> torch.device:
    """Join the ranks that torchrun started (or be the only one) and take this rank's device."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend, pinned = ("nccl", device) if on_gpu else ("gloo", None)
    if "RANK" in os.environ:
        dist.init_process_group(backend, device_id=pinned)
    else:
        dist.init_process_group(backend, device_id=pinned, rank=0, world_size=1, store=dist.HashStore())
    return device


def train(config: TrainConfig, device: torch.device) -> None:
    """Run all epochs, keeping the last and the best checkpoint."""
    torch.manual_seed(config.seed + dist.get_rank())
    out, first = Path(config.out), dist.get_rank() == 0
    resumed = Checkpoint.load(out / "last.pth") if config.resume else None
    data = load_data(config, resumed)
    network = build_network(config, data, resumed, device)
    optimizer = build_optimizer(network, config.optim)
    schedule = build_schedule(optimizer, config.optim, len(data.train))
    per_step = None if isinstance(schedule, ReduceLROnPlateau) else schedule
    epochs_done, best = 0, -1.0
    if resumed is not None and resumed.training is not None:
        optimizer.load_state_dict(resumed.training["optimizer"])
        schedule.load_state_dict(resumed.training["schedule"])
        epochs_done, best = resumed.training["epoch"], resumed.training["best"]
    parallel = DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)
    for epoch in range(epochs_done, config.optim.epochs):
        started = time.monotonic()
        data.sampler.set_epoch(epoch)
        with EpochProgress(epoch, config.optim.epochs, len(data.train), shown=first) as progress:
            losses = train_one_epoch(
                parallel, data.train, optimizer, per_step, config.loss, device,
                config.optim.precision, config.optim.clip_norm, progress,
            )  # fmt: skip
        scores = evaluate(network, data.val, device)
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(scores.accuracy)
        is_best, best = scores.accuracy > best, max(scores.accuracy, best)
        if first:
            plain = Checkpoint(config.model, data.vocabulary, network.state_dict())
            if is_best:
                plain.save(out / "best.pth")
            training: dict[str, Any] = {"epoch": epoch + 1, "best": best}
            training |= {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            dataclasses.replace(plain, training=training).save(out / "last.pth")
            report(out, epoch, losses, dataclasses.asdict(scores), time.monotonic() - started, is_best)


def report(out: Path, epoch: int, losses: dict, scores: dict, seconds: float, is_best: bool) -> None:
    """The epoch's line on screen and in log.jsonl."""
    parts = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
    mark = " (best)" if is_best else ""
    print(
        f"epoch {epoch + 1}: loss {parts} | val accuracy {scores['accuracy']:.4f} "
        f"reachable {scores['reachable']:.4f} of {scores['rows']} | {seconds:.0f} s{mark}",
        flush=True,
    )
    with open(out / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps({"epoch": epoch + 1, "losses": losses, "val": scores, "seconds": seconds}) + "\n")


def build_network(config: TrainConfig, data: Data, resumed: Checkpoint | None, device: torch.device) -> GIN:
    """The network with its first weights (or the resumed ones), the same on every rank."""
    if resumed is not None:
        network = resumed.network()
    else:
        network = GIN(config.model, len(data.vocabulary))
        fill_embedding(network.expression.embedding, data.vectors)
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_optimizer(network: GIN, config: OptimConfig) -> Optimizer:
    """AdamW, which is Adam where weight decay is zero; vectors (biases, norms) do not decay."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def build_schedule(optimizer: Optimizer, config: OptimConfig, steps_per_epoch: int) -> LambdaLR | ReduceLROnPlateau:
    """Either stepped with each batch (cosine), or with each epoch's accuracy (plateau)."""
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=config.patience)
    total = config.epochs * steps_per_epoch
    warmup = max(1, round(config.warmup * total))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)


if __name__ == "__main__":
    sys.exit(main())

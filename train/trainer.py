"""A training run: epochs of steps and evaluations, from which a killed process goes on exactly where it was."""

import dataclasses
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from model.backbone_weights import TORCHVISION
from model.checkpoint import Checkpoint, remove_leftovers
from train.board import Board
from train.config import TrainConfig
from train.data.dataset import Batch, collate
from train.data.loading import load_data
from train.data.sampler import Visit
from train.evaluation import Scores, evaluate
from train.network import build_network, compile_network
from train.optimizer import Schedule, build_optimizer
from train.progress import Steps, track
from train.records import epoch_line, rate, write_history, write_settings
from train.step import TrainingStep
from train.stop import StopRequest
from train.watch import StepWatch

LOOK_EVERY = 20  # steps between two looks at the device's results, each of which waits for it
PANEL = 8  # validation pictures shown on TensorBoard
# of `OptimConfig`: what the states of optimizer and schedule bring back or, changed, do not fit
KEPT = ("lr", "betas", "weight_decay", "schedule", "patience", "backbone_lr", "freeze_norm")


class Trainer:
    """One stage of a run. `fit` goes through the epochs that are left."""

    def __init__(self, config: TrainConfig, device: torch.device, resume: bool) -> None:
        self.config, self.device, self.out = config, device, Path(config.out)
        self.first = dist.get_rank() == 0
        self.epoch = self.position = 0  # epochs done; samples of the current epoch that are done, over all ranks
        self.best, self.history = -1.0, list[dict[str, Any]]()
        if self.first:
            remove_leftovers(self.out / "last.pth")
            remove_leftovers(self.out / "best.pth")
        resumed = Checkpoint.load(self.out / "last.pth") if resume else None
        if resumed is not None and resumed.config != config.model:
            differing = resumed.config.differences(config.model)
            raise ValueError(f"{self.out / 'last.pth'} is of a run of another network: {differing}")
        start = Checkpoint.load(config.start) if config.start is not None and resumed is None else None
        known = resumed or start
        if known is None:
            _find_files(config)
        self.data = load_data(config, known.vocabulary if known is not None else None, resume)
        self.network = build_network(config, self.data, known, device)
        self.optimizer = build_optimizer(self.network, config.optim)
        self.schedule = Schedule(self.optimizer, config.optim)
        if config.optim.compile:
            compile_network(self.network)
        parallel: torch.nn.Module = self.network
        if dist.get_world_size() > 1:
            pinned = [device.index] if device.type == "cuda" else None
            parallel = DistributedDataParallel(self.network, device_ids=pinned, gradient_as_bucket_view=True)
        self.step = TrainingStep(parallel, self.optimizer, config.loss, config.optim, device)
        self.watch = StepWatch(self.out / "skipped.jsonl", config.optim.skips_in_a_row, device)
        self.seconds = 0.0  # that the current epoch has taken in processes that were stopped
        if resumed is not None:
            self._restore(resumed)
        if self.first:
            write_settings(config, self.out)
        self.board = Board(self.out, self.epoch) if self.first else None

    def fit(self) -> None:
        """Train all epochs that are left, keeping the last and the best checkpoint. Raises Stopped or Diverged."""
        stop = StopRequest(self.config.timeout)
        try:
            while self.epoch < self.config.optim.epochs:
                self._train_epoch(stop)
                self._save()
                stop.raise_if_agreed()
                self._finish_epoch()
                self._save()
            if self.config.resized is not None:  # another stage would follow
                stop.raise_if_agreed()
        finally:
            stop.close()
            if self.board is not None:
                self.board.close()

    def _train_epoch(self, stop: StopRequest) -> None:
        optim, batches = self.config.optim, self.data.batches
        self._started = time.monotonic()
        batches.begin(self.epoch, self.position)
        steps, size = batches.steps, batches.samples_per_step
        self._train_mode()
        loaded: Iterator[Batch] = iter(self.data.train)
        name = f"epoch {self.epoch + 1}/{optim.epochs}"
        if self.history:
            name += f", accuracy {self.history[-1]['val']['accuracy']:.3f}"
        with Steps(f"{name}: step", steps, shown=self.first) as progress:
            for done in range(1, steps + 1):
                middle = (self.position + size / 2) / batches.samples
                self.schedule.before_step((self.epoch + middle) / optim.epochs)
                self._seed_step()
                micro_batches = list(islice(loaded, optim.accumulate))
                result = self.step(micro_batches)
                rows = [row for batch in micro_batches for row in batch.rows.tolist()]
                self.watch.add(self.epoch, self.position // size, result, rows)
                self.position += size
                saving = self.position // size % self.config.save_every == 0
                if saving or done % LOOK_EVERY == 0:
                    loss = self.watch.look()
                    speed = rate(done * size / (time.monotonic() - self._started))
                    progress(done, f"loss {loss:.3f}, {speed}")
                if saving:
                    self._save()
                if stop.agreed():
                    self.watch.look()
                    self._save()
                    stop.raise_if_agreed()  # once it is saved: Slurm kills a job 30 seconds after the first rank's end
        self.watch.look()

    def _train_mode(self) -> None:
        self.network.train()
        if self.config.optim.freeze_norm or self.config.optim.backbone_lr == 0:
            for module in self.network.backbone.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()

    def _seed_step(self) -> None:
        """What a step draws at random (dropout) depends on the seed, its place and the rank, not on what came before:
        so there is no random state to keep."""
        place = (self.config.seed, self.epoch, self.position, dist.get_rank())
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def _finish_epoch(self) -> None:
        """Evaluate, write the epoch down, and keep the weights if they are the best so far."""
        trained = time.monotonic() - self._started + self.seconds
        for buffer in self.network.buffers():  # so that what is evaluated is what is saved
            dist.broadcast(buffer, 0)
        name = f"epoch {self.epoch + 1}/{self.config.optim.epochs}: evaluating batch"
        answers = evaluate(self.network, track(self.data.val, name, len(self.data.val), self.first), self.device)
        scores = Scores.of(answers, self.data.val_unusable)
        line = {
            "epoch": self.epoch + 1,
            "losses": self.watch.means(),
            "val": dataclasses.asdict(scores),
            "lr": self.optimizer.param_groups[0]["lr"],  # the backbone's groups come last
            "images_per_second": self.position / trained,
            "seconds": time.monotonic() - self._started + self.seconds,
            "skipped": self.watch.skipped,
        }
        self.schedule.after_epoch(scores.accuracy)
        is_best = math.isfinite(scores.accuracy) and scores.accuracy > self.best
        self.history.append(line)
        self.epoch, self.position, self.seconds = self.epoch + 1, 0, 0.0
        self.watch.reset()
        if is_best:
            self.best = scores.accuracy
        if self.first:
            if is_best:
                self._checkpoint().save(self.out / "best.pth")
            write_history(self.history, self.out)
            print(epoch_line(line, is_best), flush=True)
        if self.board is not None:
            self.board.add_epoch(line)
            self.board.add_panel(self.network, self.data.vocabulary, self._panel(), self.device, self.epoch)

    def _panel(self) -> Batch:
        dataset = self.data.val.dataset
        return collate([dataset[Visit(0, index)] for index in range(min(PANEL, len(dataset)))])  # type: ignore[arg-type]

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.config.model, self.data.vocabulary, self.network.state_dict())

    def _save(self) -> None:
        """Write last.pth. Between two steps ranks differ in the norms' statistics alone, of which the next step goes on
        with the first one's: so its state is enough."""
        watched = self.watch.state_dict()
        if not self.first:
            return
        spent = time.monotonic() - self._started if self.position else 0.0
        training = {
            "epoch": self.epoch,
            "position": self.position,
            "samples": self.data.batches.samples,
            "seed": self.config.seed,
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds + spent,
            "optim": {name: getattr(self.config.optim, name) for name in KEPT},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "watch": watched,
        }
        dataclasses.replace(self._checkpoint(), training=training).save(self.out / "last.pth")

    def _restore(self, resumed: Checkpoint) -> None:
        """The inverse of `_save`, but for the weights. Raises ValueError where the run is another one."""
        last, training = self.out / "last.pth", resumed.training
        if training is None:
            raise ValueError(f"{last} holds weights but no state of a run, so it cannot be resumed")
        if training["samples"] != self.data.batches.samples:
            samples = self.data.batches.samples
            raise ValueError(f"{last} is of a run on {training['samples']} samples, but there are {samples} now")
        if training.get("seed", self.config.seed) != self.config.seed:  # none in older runs
            raise ValueError(f"{last} is of a run with seed={training['seed']}, not {self.config.seed}")
        theirs, ours = training.get("optim", {}), dataclasses.asdict(self.config.optim)  # none in older runs
        differing = [name for name, value in theirs.items() if value != ours[name]]
        if differing:
            named = ", ".join(f"optim.{name} ({theirs[name]} there, {ours[name]} here)" for name in differing)
            raise ValueError(f"{last} is of a run that was optimised otherwise: {named}")
        self.epoch, self.position = training["epoch"], training["position"]
        self.best, self.history, self.seconds = training["best"], training["history"], training["seconds"]
        self.optimizer.load_state_dict(training["optimizer"])
        self.schedule.load_state_dict(training["schedule"])
        if training["scaler"]:  # only fp16 has some
            self.step.scaler.load_state_dict(training["scaler"])
        self.watch.load_state_dict(training["watch"])


def _find_files(config: TrainConfig) -> None:
    """Open what is read only after all pictures have been looked at. Raises OSError where it is not there."""
    for path in (config.data.word_vectors, config.backbone_weights):
        if path is not None and path != TORCHVISION:
            with open(path, "rb"):
                pass

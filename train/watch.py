"""What happened in the steps, read from the device only now and then."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.loss import Losses
from train.step import StepResult


class Diverged(RuntimeError):
    """Too many steps in a row whose loss or gradient was not finite."""


class StepWatch:
    """Collects the results of an epoch's steps.

    Steps that were left out are counted, and each rank logs the rows it had in them; too many in a row raise Diverged.
    skipped: how many were left out.
    """

    def __init__(self, log: Path, most_in_a_row: int, device: torch.device) -> None:
        self._log, self._most = log, most_in_a_row
        self._unread: list[tuple[int, int, StepResult, list[int]]] = []
        self._in_a_row = 0
        self.skipped = 0
        self._sums = torch.zeros(len(Losses._fields) + 1, device=device)

    def add(self, epoch: int, step: int, result: StepResult, rows: list[int]) -> None:
        """step: its number in the epoch; both from 0. rows: this rank's, of all its micro-batches."""
        self._unread.append((epoch, step, result, rows))
        counted = torch.cat((result.losses, torch.ones_like(result.losses[:1])))
        self._sums += torch.where(result.taken, counted, 0.0)

    def look(self) -> float:
        """Wait for the device and read what is unread. Returns the last loss. Raises Diverged."""
        if not self._unread:
            return 0.0
        flags = torch.stack([result.taken for _, _, result, _ in self._unread]).tolist()
        losses = torch.stack([result.losses[0] for _, _, result, _ in self._unread]).tolist()
        longest = 0
        for taken, loss, (epoch, step, _, rows) in zip(flags, losses, self._unread, strict=True):
            self._in_a_row = 0 if taken else self._in_a_row + 1
            longest = max(longest, self._in_a_row)
            if not taken:
                self._report(epoch, step, loss, rows)
        self._unread.clear()
        if longest >= self._most:
            raise Diverged(
                f"the loss or its gradient was not finite in {longest} steps in a row; {self._log} names their rows, "
                "and the last checkpoint holds the weights from before"
            )
        return losses[-1]

    def reset(self) -> None:
        """Begin another epoch."""
        self._sums.zero_()
        self.skipped = 0

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs; every rank has to ask for it at once."""
        return {"sums": self._over_all_ranks().tolist(), "skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`: the first rank takes the sums of all."""
        if not dist.is_initialized() or dist.get_rank() == 0:
            self._sums.copy_(torch.tensor(state["sums"]))
        self.skipped, self._in_a_row = state["skipped"], state["in_a_row"]

    def means(self) -> dict[str, float]:
        """Mean losses of the steps taken, over all ranks."""
        sums = self._over_all_ranks()
        return {name: float(sums[i] / sums[-1]) for i, name in enumerate(Losses._fields)}

    def _over_all_ranks(self) -> Tensor:
        sums = self._sums.clone()
        if dist.is_initialized():
            dist.all_reduce(sums)
        return sums

    def _report(self, epoch: int, step: int, loss: float, rows: list[int]) -> None:
        self.skipped += 1
        rank = dist.get_rank() if dist.is_initialized() else 0
        entry = {"epoch": epoch + 1, "step": step + 1, "rank": rank, "loss": repr(loss), "rows": rows}
        print(f"step {step + 1} left out: not finite (loss {loss:g} on rank {rank}, rows {rows})", file=sys.stderr)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")

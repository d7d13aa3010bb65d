"""Which samples a rank sees in which step: a function of the seed, the epoch and how far the epoch has come."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch.distributed as dist
from torch.utils.data import Sampler


class Visit(NamedTuple):
    """One look at one sample; what is drawn at random for it depends on these two numbers and the seed alone."""

    epoch: int
    sample: int


class TrainingBatches(Sampler[list[Visit]]):
    """This rank's batches of an epoch.

    The samples are shuffled, the same way on every rank, and dealt out step by step: a step takes
    `batch_size` x `accumulate` samples for each rank. What does not fill a step is left out of that epoch. An epoch
    that was interrupted goes on at any sample, also with another number of ranks.
    """

    def __init__(self, samples: int, batch_size: int, accumulate: int, seed: int) -> None:
        self.samples, self.batch_size, self.accumulate, self.seed = samples, batch_size, accumulate, seed
        self.rank, self.ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if samples < self.samples_per_step:
            raise ValueError(
                f"{samples} samples do not fill one step of {self.samples_per_step} samples over all ranks; "
                "batch_size has to be smaller"
            )
        self.begin(epoch=0)

    @property
    def samples_per_step(self) -> int:
        """Samples of one step over all ranks."""
        return self.batch_size * self.accumulate * self.ranks

    @property
    def steps(self) -> int:
        """Steps that are left in this epoch."""
        return (self.samples - self._position) // self.samples_per_step

    def begin(self, epoch: int, position: int = 0) -> None:
        """Set what the next iteration goes through: an epoch, after its first `position` samples over all ranks."""
        self._epoch, self._position = epoch, position

    def __len__(self) -> int:
        """Batches that are left in this epoch."""
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[Visit]]:
        order = np.random.default_rng((self.seed, self._epoch)).permutation(self.samples)[self._position :]
        batches = order[: self.steps * self.samples_per_step].reshape(-1, self.ranks, self.batch_size)
        for batch in batches[:, self.rank].tolist():
            yield [Visit(self._epoch, sample) for sample in batch]

"""The head's scores in single precision from half precision's products.

`lower` keeps the score's weights in single precision, in which a GPU multiplies without its matrix units. They are the
sum of two numbers in half precision, exactly enough, and the units add up products in single precision anyway.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.graphs import precision_of
from export.rewrite.winner import ScoreFirst
from model.gin import GIN

ALIGNED = 8  # columns that the matrix units take at once


def half_scores(network: GIN) -> GIN:
    """Replace the score and the deltas of the head, of a network in half precision, by what takes cells in it."""
    network = copy.deepcopy(network).eval()
    head = network.head
    assert isinstance(head, ScoreFirst)
    head.score = TwoPartScore(head.score, precision_of(network))  # type: ignore[assignment]
    head.deltas = SingleDeltas(head.deltas)  # type: ignore[assignment]
    return network


class TwoPartScore(nn.Module):
    """Stands in for `ScoreFirst.score`."""

    def __init__(self, score: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.outputs = score.out_features
        coarse = score.weight.detach().to(dtype)
        fine = (score.weight.detach() - coarse).to(dtype)
        spare = -self.outputs % ALIGNED
        self.weight = nn.Parameter(torch.cat([F.pad(part, (0, 0, 0, spare)) for part in (coarse, fine)]).contiguous())

    def forward(self, cells: Tensor) -> Tensor:
        """cells: half precision (N, M, width). Returns float32 (N, M, outputs)."""
        N, M, _ = cells.shape
        coarse, fine = single_product(cells.flatten(0, 1), self.weight.T).chunk(2, dim=1)
        return (coarse[:, : self.outputs] + fine[:, : self.outputs]).view(N, M, -1)


def single_product(one: Tensor, other: Tensor) -> Tensor:
    """Matrix product of half precision, summed and returned in single precision."""
    return torch.mm(one, other, out_dtype=torch.float32)


class SingleDeltas(nn.Module):
    """Stands in for `ScoreFirst.deltas`: few of them are asked for."""

    def __init__(self, deltas: nn.Linear) -> None:
        super().__init__()
        self.deltas = deltas

    def forward(self, patches: Tensor) -> Tensor:
        """patches: half precision (..., 9 * width)."""
        return self.deltas(patches.float())  # type: ignore[no-any-return]

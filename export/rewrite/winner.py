"""Scores everywhere, box deltas where they are asked for: four fifths of the head's last convolution are deltas."""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.rewrite.cells import CellsHead
from model.anchors import on_device
from model.gin import GIN
from model.head import Head


class ScoreFirst(nn.Module):
    """Stands in for any head.

    All levels go through it together, as rows of cells. A 3x3 convolution to few channels is one product that gives
    every cell's part in its nine neighbours, then their sum.
    """

    def __init__(self, head: Head, anchors_per_cell: int) -> None:
        """head: a `Head`, or what stands in for one."""
        super().__init__()
        self.head, self.anchors_per_cell = head, anchors_per_cell
        output = head.output
        assert output.bias is not None
        K, width = anchors_per_cell, output.in_channels
        weight = output.weight.detach().view(K, 5, width, 9)  # four deltas, then the score
        bias = output.bias.detach().view(K, 5)
        self.score = nn.Linear(width, 9 * K, bias=False)
        self.score.weight = nn.Parameter(weight[:, 4].permute(2, 0, 1).reshape(9 * K, width).contiguous())
        self.score_bias = nn.Parameter(bias[:, 4].clone())
        self.deltas = nn.Linear(9 * width, 4 * K)
        self.deltas.weight = nn.Parameter(weight[:, :4].transpose(2, 3).reshape(4 * K, 9 * width).contiguous())
        self.deltas.bias = nn.Parameter(bias[:, :4].flatten().clone())

    def forward(self, pyramid: Sequence[Tensor], expressions: Tensor) -> tuple[Tensor, Tensor]:
        """As `Head.forward`, all deltas."""
        return self.head(pyramid, expressions)

    def scores(self, pyramid: Sequence[Tensor], expressions: Tensor) -> tuple[Tensor, Tensor]:
        """Score logits (N, A) as `Head.forward` gives them, and the cells that `deltas_at` wants. They are in the
        precision of the score's weights, whatever that of the head is."""
        sizes = tuple((level.shape[2], level.shape[3]) for level in pyramid)
        if isinstance(self.head, CellsHead):
            read = self.head.cells(pyramid, expressions).transpose(0, 1)
        else:
            levels = self.head.read(pyramid, expressions)
            read = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        # the last cell is beyond every edge
        cells = F.pad(read.to(self.score.weight.dtype), (0, 0, 0, 1))  # (N, cells + 1, width)
        parts = self.score(cells).unflatten(2, (9, self.anchors_per_cell)).flatten(1, 2)  # (N, 9 * (cells + 1), K)
        taps = on_device(neighbours_taps, cells.device, torch.int64, sizes)  # (cells * 9,)
        logits = parts.index_select(1, taps).unflatten(1, (-1, 9)).sum(dim=2) + self.score_bias  # (N, cells, K)
        return logits.flatten(1), cells

    def deltas_at(self, cells: Tensor, sizes: Sequence[tuple[int, int]], index: Tensor) -> Tensor:
        """Box deltas (N, K, 4) at anchors `index` (N, K). sizes: (height, width) of the maps."""
        N, K = index.shape
        places = on_device(neighbours, index.device, torch.int64, tuple(sizes))  # (cells, 9)
        # looked up, for a graph divides integers in eight steps
        cells_of = on_device(cells_of_anchors, index.device, torch.int64, len(places), self.anchors_per_cell)
        first = torch.arange(N, device=index.device)[:, None] * cells.shape[1]
        rows = places.index_select(0, cells_of.index_select(0, index.flatten())).view(N, K * 9) + first
        patches = F.embedding(rows, cells.flatten(0, 1)).view(N, K, -1)  # (N, K, 9 * width)
        deltas = self.deltas(patches).unflatten(2, (self.anchors_per_cell, 4))
        shape = index % self.anchors_per_cell
        return deltas.gather(2, shape[:, :, None, None].expand(-1, -1, 1, 4)).squeeze(2)


def neighbours(sizes: Sequence[tuple[int, int]]) -> Tensor:
    """For each cell of maps of the given (height, width), one after another: the 3x3 cells around it, the one after
    all where there is none. int64 (cells, 9)."""
    cells = sum(height * width for height, width in sizes)
    tables, before = [], 0
    for height, width in sizes:
        padded = [[cells] * (width + 2) for _ in range(height + 2)]
        for y in range(height):
            padded[y + 1][1:-1] = range(before + y * width, before + (y + 1) * width)
        tables += [[padded[y + tap // 3][x + tap % 3] for tap in range(9)] for y in range(height) for x in range(width)]
        before += height * width
    return torch.tensor(tables)


def neighbours_taps(sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Where each of `neighbours` has its part in a cell, if each has nine: int64 (cells * 9,)."""
    return (neighbours(sizes) * 9 + torch.arange(9)).flatten()


def cells_of_anchors(cells: int, anchors_per_cell: int) -> Tensor:
    """The cell of each anchor: int64 (cells * anchors_per_cell,)."""
    return torch.arange(cells).repeat_interleave(anchors_per_cell)


def score_first(network: GIN) -> GIN:
    """Let the head give scores first and deltas on request."""
    network = copy.deepcopy(network).eval()
    if not isinstance(network.head, ScoreFirst):
        network.head = ScoreFirst(cast(Head, network.head), network.config.anchors_per_cell)
    return network

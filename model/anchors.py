"""Anchors: the boxes that the head corrects and scores, fixed by the sizes of the maps alone."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_centres(height: int, width: int) -> Tensor:
    """Centres of a map's cells as (y, x) in -1..1: float64 (height, width, 2)."""
    ys = (torch.arange(height, dtype=torch.float64) * 2 + 1) / height - 1
    xs = (torch.arange(width, dtype=torch.float64) * 2 + 1) / width - 1
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij"), dim=-1)


def make_anchors(sizes: Sequence[tuple[int, int]], scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors of maps of the given (height, width), as (centre y, centre x, height, width) in -1..1.

    An anchor is scale * sqrt(ratio) cells high and scale / sqrt(ratio) cells wide. Order: maps as given, then rows,
    columns, ratios, scales. Returns float32 (A, 4).
    """
    shapes = torch.tensor([(s * r**0.5, s / r**0.5) for r in ratios for s in scales], dtype=torch.float64)  # (K, 2)
    levels = []
    for height, width in sizes:
        centres = cell_centres(height, width).view(-1, 1, 2).expand(-1, len(shapes), 2)
        cells = shapes * torch.tensor([2 / height, 2 / width], dtype=torch.float64)
        levels.append(torch.cat((centres, cells.expand_as(centres)), dim=-1).reshape(-1, 4))
    return torch.cat(levels).float()

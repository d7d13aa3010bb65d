"""Anchors: the boxes that the head corrects and scores, fixed by the sizes of the maps alone."""

import math
from collections.abc import Callable, Hashable, Sequence
from functools import cache

import torch
from torch import Tensor


def cell_centres(height: int, width: int) -> Tensor:
    """Centres of a map's cells as (y, x) in -1..1: float32 (height, width, 2)."""
    ys, xs = (torch.linspace(-1 + 1 / side, 1 - 1 / side, side) for side in (height, width))
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij"), dim=-1)


def make_anchors(sizes: Sequence[tuple[int, int]], scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors of maps of the given (height, width), as (centre y, centre x, height, width) in -1..1.

    An anchor is scale * sqrt(ratio) cells high and scale / sqrt(ratio) cells wide. Order: maps as given, then rows,
    columns, ratios, scales. Returns float64 (A, 4), rounded as the authors' code rounds: a small box lies wholly in
    several anchors of equal area, and the last digit says which of them overlaps it best.
    """
    shapes = [(scale * math.sqrt(ratio), scale * math.sqrt(1 / ratio)) for ratio in ratios for scale in scales]
    cells = torch.tensor(shapes, dtype=torch.float64)  # (K, 2)
    levels = []
    for height, width in sizes:
        centres = cell_centres(height, width).double().view(-1, 1, 2).expand(-1, len(shapes), 2)
        extents = cells * torch.tensor([2 / height, 2 / width])  # float64 times float32
        levels.append(torch.cat((centres, extents.expand_as(centres)), dim=-1).reshape(-1, 4))
    return torch.cat(levels)


def on_device(make: Callable[..., Tensor], device: torch.device, dtype: torch.dtype, *arguments: Hashable) -> Tensor:
    """`make(*arguments)` on a device, computed and copied once: a copy to a GPU waits for the host. Do not change it.

    In a TorchScript trace and in ONNX it is a constant, if the network has run before: what is computed meanwhile
    becomes part of them. Otherwise `torch.export` and `torch.compile` compute it anew, and fold what they can.
    """
    if torch.compiler.is_compiling() and not torch.onnx.is_in_onnx_export():
        return make(*arguments).to(device, dtype)
    return _kept(make, device, dtype, *(_untraced(argument) for argument in arguments))


def _untraced(argument: Hashable) -> Hashable:
    """While a network is traced the sizes of its maps are tensors."""
    if isinstance(argument, tuple):
        return tuple(_untraced(part) for part in argument)
    return int(argument) if isinstance(argument, Tensor) else argument


@cache  # what a CUDA graph has captured must stay where it is
def _kept(make: Callable[..., Tensor], device: torch.device, dtype: torch.dtype, *arguments: Hashable) -> Tensor:
    with torch.inference_mode(mode=False):  # an evaluation's tensor is to serve training too
        return make(*arguments).to(device, dtype)

"""3x3 convolutions taken apart into their nine taps, and what is known of these beforehand from the size of a map.

Bilinear upsampling mixes positions and a 1x1 convolution mixes channels, so they commute. A 3x3 convolution of an
upsampled map is the sum of nine such 1x1 convolutions, each upsampled and shifted by one position, with zeros from
beyond the edge. Upsampling and shifting are linear along each axis: a matrix, small and known beforehand.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.anchors import on_device


def convolve_upsampled(features: Tensor, taps: Tensor, bias: Tensor, factor: int) -> Tensor:
    """A 3x3 convolution of a map after bilinear upsampling with aligned corners, at the cost of one before.

    features: (B, I, h, w), channels last in memory as the result is. taps: (9 * O, I), the kernel by column, row and
    output. bias: (O,). Returns (B, O, h * factor, w * factor).
    """
    B, _, h, w = features.shape
    width = len(bias)
    rows, columns = (on_device(taps_by_place, features.device, features.dtype, side, side * factor) for side in (h, w))
    parts = F.linear(features.permute(0, 2, 3, 1), taps).view(B, h, 3 * w, 3 * width)  # (B, h, w and column, ...)
    wide = (columns @ parts).view(B, h, -1, 3, width).transpose(2, 3)  # (B, h, 3, W, O)
    tall = rows @ wide.reshape(B, 3 * h, -1)  # (B, H, W * O)
    return (tall.unflatten(2, (-1, width)) + bias).permute(0, 3, 1, 2)


def upsampling_taps(small: int, large: int) -> Tensor:
    """Linear upsampling with aligned corners from `small` to `large` positions, seen by the three taps of a convolution
    with one zero beyond each end: float64 (3 * small, large)."""
    places = torch.arange(large, dtype=torch.float64) * ((small - 1) / (large - 1))
    low = places.floor().clamp(max=max(small - 2, 0)).long()
    share = places - low
    matrix = torch.zeros(large + 2, small, dtype=torch.float64)  # a row of zeros beyond each end
    inner = torch.arange(large) + 1
    matrix[inner, low] += 1 - share
    matrix[inner, (low + 1).clamp(max=small - 1)] += share
    return torch.cat([matrix[tap : tap + large] for tap in range(3)], dim=1).T.contiguous()


def taps_by_place(small: int, large: int) -> Tensor:
    """`upsampling_taps` the other way round, and by place before tap: float64 (large, small * 3)."""
    return upsampling_taps(small, large).view(3, small, large).permute(2, 1, 0).reshape(large, small * 3).contiguous()


def taps_inside(height: int, width: int) -> Tensor:
    """1 where a tap of a 3x3 convolution lies inside the map, 0 in its padding: float64 (9, height * width)."""
    rows, columns = (
        torch.tensor([[0 <= place + tap < side for place in range(side)] for tap in (-1, 0, 1)]).double()  # (3, side)
        for side in (height, width)
    )
    return torch.kron(rows, columns)

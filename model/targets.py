"""Attention targets: where GARAN's collect attention should look for a true box."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import STRIDES

_SMOOTH = 1e-7  # added above and below the fraction by the authors


def attention_targets(boxes: Tensor, image_size: int) -> list[Tensor]:
    """Targets of the attention loss at strides 8, 16 and 32, from true boxes yxyx in -1..1 (N, 4).

    At stride 8, in cells: the true box at half its height and width around its centre, against a box of the same
    size centred on (row, column) itself and clipped to the map; the value is their IoU. The coarser targets are
    bilinear reductions. Returns float32 (N, h, w) with h = w = image_size / stride.
    """
    side = image_size // STRIDES[0]
    corners = (boxes.double() + 1) / 2 * side
    size = (corners[:, 2:] - corners[:, :2]) / 2  # (N, 2) half height, half width
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    cells = torch.arange(side, device=boxes.device, dtype=torch.float64)  # (side,)

    def overlap(axis: int) -> tuple[Tensor, Tensor]:
        """Intersection and the clipped box's extent along one axis, (N, side) each."""
        half = size[:, axis, None] / 2
        low, high = (cells - half).clamp(min=0), (cells + half).clamp(max=side)
        middle = centre[:, axis, None]
        return (torch.minimum(high, middle + half) - torch.maximum(low, middle - half)).clamp(min=0), high - low

    (inter_y, height), (inter_x, width) = overlap(0), overlap(1)
    intersection = inter_y[:, :, None] * inter_x[:, None, :]  # (N, side, side)
    union = size.prod(dim=1)[:, None, None] + height[:, :, None] * width[:, None, :] - intersection
    finest = ((intersection + _SMOOTH) / (union + _SMOOTH))[:, None]  # (N, 1, side, side)
    return [
        F.interpolate(finest, size=(image_size // stride, image_size // stride), mode="bilinear").squeeze(1).float()
        for stride in STRIDES
    ]

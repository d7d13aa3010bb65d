"""Box formats and box coding.

Formats: `xyxy` is x1, y1, x2, y2 in pixels; `yxyx` is y1, x1, y2, x2 in -1..1; `yxhw` is centre y, centre x, height,
width in -1..1. Every function works on (..., 4) tensors unless it says otherwise.
"""

import torch
from torch import Tensor

_TINY = 1e-8  # keeps degenerate boxes from dividing by zero; the authors' value, so losses agree


def yxyx_to_yxhw(boxes: Tensor) -> Tensor:
    """Corners to centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def yxhw_to_yxyx(boxes: Tensor) -> Tensor:
    """Centre and size to corners."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def xyxy_to_yxyx(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Pixels to -1..1. image_sizes: (..., 2) as (height, width) in pixels."""
    return _swapped(boxes) / torch.cat((image_sizes, image_sizes), dim=-1) * 2 - 1


def yxyx_to_xyxy(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """-1..1 to pixels. image_sizes: (..., 2) as (height, width) in pixels."""
    return _swapped((boxes + 1) / 2 * torch.cat((image_sizes, image_sizes), dim=-1))


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Deltas that `decode_boxes` turns back into `boxes`. Both (..., 4) yxhw, broadcast against each other."""
    centre = (boxes[..., :2] - anchors[..., :2]) / (anchors[..., 2:] + _TINY)
    size = torch.log(boxes[..., 2:] / (anchors[..., 2:] + _TINY))
    return torch.cat((centre, size), dim=-1)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes yxhw from deltas and anchors yxhw."""
    centre = deltas[..., :2] * anchors[..., 2:] + anchors[..., :2]
    return torch.cat((centre, deltas[..., 2:].exp() * anchors[..., 2:]), dim=-1)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of corner boxes (any of the two orders), broadcast: (..., 4), (..., 4) -> (...)."""
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    other_area = (others[..., 2:] - others[..., :2]).prod(dim=-1)
    return intersection / (area + other_area - intersection + _TINY)


def clip_xyxy(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Boxes in pixels cut off at the picture's border. image_sizes: (..., 2) as (height, width)."""
    limit = image_sizes.flip(-1).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), torch.cat((limit, limit), dim=-1))


def _swapped(boxes: Tensor) -> Tensor:
    """Corners with y, x for x, y, or the other way about."""
    return boxes.unflatten(-1, (2, 2)).flip(-1).flatten(-2)

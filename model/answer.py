"""From the network's output to its answer: the box of the best anchor."""

from typing import NamedTuple

import torch
from torch import Tensor

from model.boxes import decode_boxes, yxhw_to_yxyx, yxyx_to_xyxy
from model.gin import Grounding


class Answer(NamedTuple):
    """boxes: (N, 4) xyxy in pixels of the original image, not clipped. scores: (N,) in 0..1. best: (N,) anchor."""

    boxes: Tensor
    scores: Tensor
    best: Tensor


def answer(grounding: Grounding, image_sizes: Tensor) -> Answer:
    """Decode the best anchor of each expression. image_sizes: (N, 2) as (height, width) of the original images."""
    logits, best = grounding.score_logits.max(dim=1)
    return Answer(decode_at(grounding, best, image_sizes), logits.sigmoid(), best)


def decode_at(grounding: Grounding, index: Tensor, image_sizes: Tensor) -> Tensor:
    """The box (N, 4) xyxy in pixels that the network gives at anchor index[n] of each expression."""
    deltas = grounding.box_deltas.gather(1, index[:, None, None].expand(-1, 1, 4)).squeeze(1)
    boxes = yxhw_to_yxyx(decode_boxes(deltas, grounding.anchors.float()[index]))
    return yxyx_to_xyxy(boxes, image_sizes.to(boxes.dtype))


def pixels_to_images(pixels: Tensor) -> Tensor:
    """Prepared pictures uint8 (B, H, W, 3) to the network's images float32 (B, 3, H, W) in 0..1."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32) / 255

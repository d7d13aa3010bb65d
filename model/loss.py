"""The loss: which anchors should be chosen, what their boxes should be, where the network should look."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.boxes import box_iou, encode_boxes, yxhw_to_yxyx, yxyx_to_yxhw
from model.gin import Grounding


@dataclass(frozen=True)
class LossConfig:
    """Options of the loss; the defaults are the authors'."""

    classification: str = "focal"
    """"focal" (binary, focal-weighted), "binary" (unweighted) or "softmax" (one right anchor of all)"""
    positive_iou: float = 0.6
    """anchors over this IoU with the true box are positive"""
    focal_alpha: float = 0.25
    """weight of negatives"""
    focal_gamma: float = 2.0
    """focusing power"""
    box_weight: float = 1.0
    """factor of the box loss in the total"""
    attention_weight: float = 1.0
    """factor of the attention loss in the total, 0 to train without it"""

    def __post_init__(self) -> None:
        if self.classification not in ("focal", "binary", "softmax"):
            raise ValueError(f"classification is {self.classification!r}; known: focal, binary, softmax")
        for name in ("positive_iou", "focal_alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"loss.{name} is {getattr(self, name)}; it must be 0 to 1")
        for name in ("focal_gamma", "box_weight", "attention_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"loss.{name} is {getattr(self, name)}; it must be finite and not negative")


class Losses(NamedTuple):
    """Scalars; `total` is what is minimised."""

    total: Tensor
    classification: Tensor
    box: Tensor
    attention: Tensor


def grounding_loss(grounding: Grounding, boxes: Tensor, targets: list[Tensor], config: LossConfig) -> Losses:
    """boxes: true boxes (N, 4) yxyx in -1..1. targets: from `attention_targets`.

    The attention loss of a network without GARAN, which has no attention, is zero.
    """
    scores = grounding.score_logits.float()
    deltas = grounding.box_deltas.float()
    iou = box_iou(boxes[:, None], yxhw_to_yxyx(grounding.anchors)[None])  # (N, A)
    best = iou.argmax(dim=1)
    positive = torch.zeros_like(iou, dtype=torch.bool).scatter_(1, best[:, None], True)
    if config.classification != "softmax":
        positive |= iou > config.positive_iou
    classification = _classification_loss(scores, positive, best, config)
    box = _box_loss(deltas, encode_boxes(yxyx_to_yxhw(boxes)[:, None], grounding.anchors.float()[None]), positive)
    attention = scores.new_zeros(())
    if grounding.attention_logits:
        attention = _attention_loss(grounding.attention_logits, targets)
    total = classification + config.box_weight * box + config.attention_weight * attention
    return Losses(total, classification, box, attention)


def _classification_loss(scores: Tensor, positive: Tensor, best: Tensor, config: LossConfig) -> Tensor:
    """scores, positive: (N, A). best: (N,). Summed over everything, divided by the positives of the batch."""
    if config.classification == "softmax":
        return F.cross_entropy(scores, best)
    truth = positive.float()
    weight = None
    if config.classification == "focal":
        chance = scores.detach().sigmoid()
        miss = torch.where(positive, 1 - chance, chance)
        alpha = torch.where(positive, 1 - config.focal_alpha, config.focal_alpha)
        weight = alpha * miss**config.focal_gamma
    loss = F.binary_cross_entropy_with_logits(scores, truth, weight=weight, reduction="sum")
    return loss / truth.sum()


def _box_loss(deltas: Tensor, truth: Tensor, positive: Tensor) -> Tensor:
    """deltas, truth: (N, A, 4). positive: (N, A). Mean over an expression's positives, then over expressions."""
    loss = F.smooth_l1_loss(deltas, truth, reduction="none").sum(dim=2) * positive
    return (loss.sum(dim=1) / positive.sum(dim=1)).mean()


def _attention_loss(attention_logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Both (N, h, w) per level. Mean over a level's positions and expressions, then over levels."""
    levels = zip(attention_logits, targets, strict=True)
    return torch.stack([F.binary_cross_entropy_with_logits(logits.float(), target) for logits, target in levels]).mean()

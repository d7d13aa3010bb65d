"""The loss and the attention targets against slow, plain calculations."""

import math

import pytest
import torch
from torch import Tensor

from model.anchors import make_anchors
from model.boxes import box_iou, encode_boxes, yxhw_to_yxyx, yxyx_to_yxhw
from model.gin import Grounding
from model.loss import LossConfig, grounding_loss
from model.targets import attention_targets

BOXES = torch.tensor([[-0.8, -0.5, 0.1, 0.4], [-0.2, 0.1, 0.9, 0.8]])  # yxyx


@pytest.fixture
def grounding() -> Grounding:
    """Random outputs of a network with 8 x 8, 4 x 4 and 2 x 2 maps."""
    generator = torch.Generator().manual_seed(0)
    anchors = make_anchors([(8, 8), (4, 4), (2, 2)], [2.0, 3.0], [0.5, 1.0, 2.0])
    maps = tuple(torch.randn(2, side, side, generator=generator) for side in (8, 4, 2))
    scores = torch.randn(2, len(anchors), generator=generator)
    return Grounding(scores, torch.randn(2, len(anchors), 4, generator=generator), maps, anchors)


def slow_parts(grounding: Grounding, config: LossConfig) -> tuple[float, float]:
    """Classification and box loss, anchor by anchor."""
    classification, positives, boxes = 0.0, 0, []
    for n, box in enumerate(BOXES):
        iou = box_iou(box, yxhw_to_yxyx(grounding.anchors))
        positive = iou > config.positive_iou
        positive[iou.argmax()] = True
        truth = encode_boxes(yxyx_to_yxhw(box), grounding.anchors)
        own = []
        for a in range(len(grounding.anchors)):
            chance = 1 / (1 + math.exp(-float(grounding.score_logits[n, a])))
            hit = chance if positive[a] else 1 - chance
            alpha = 0.75 if positive[a] else 0.25
            weight = alpha * (1 - hit) ** 2 if config.classification == "focal" else 1.0
            classification -= weight * math.log(hit)
            if positive[a]:
                off = (grounding.box_deltas[n, a] - truth[a]).abs()
                own.append(float(torch.where(off < 1, off**2 / 2, off - 0.5).sum()))
        positives += int(positive.sum())
        boxes.append(sum(own) / len(own))
    return classification / positives, sum(boxes) / len(boxes)


@pytest.mark.parametrize("classification", ["focal", "binary"])
def test_parts(grounding: Grounding, classification: str) -> None:
    """Classification and box loss are the plain sums of the reference; the total adds the parts with their weights."""
    config = LossConfig(classification=classification, positive_iou=0.3, box_weight=2.0, attention_weight=0.5)
    losses = grounding_loss(grounding, BOXES, attention_targets(BOXES, 64), config)
    expected_classification, expected_box = slow_parts(grounding, config)
    assert float(losses.classification) == pytest.approx(expected_classification, rel=1e-4)
    assert float(losses.box) == pytest.approx(expected_box, rel=1e-4)
    total = losses.classification + 2 * losses.box + 0.5 * losses.attention
    torch.testing.assert_close(losses.total, total)


def test_without_attention(grounding: Grounding) -> None:
    """A network without GARAN has no attention loss: zero, and the total is the sum of the rest."""
    losses = grounding_loss(grounding._replace(attention_logits=()), BOXES, attention_targets(BOXES, 64), LossConfig())
    assert float(losses.attention) == 0
    torch.testing.assert_close(losses.total, losses.classification + losses.box)


def test_unweighted_attention_is_reported(grounding: Grounding) -> None:
    """With weight zero the attention loss is reported but not minimised."""
    config = LossConfig(attention_weight=0.0)
    losses = grounding_loss(grounding, BOXES, attention_targets(BOXES, 64), config)
    assert float(losses.attention) > 0
    torch.testing.assert_close(losses.total, losses.classification + losses.box)


def test_softmax_wants_the_best_anchor(grounding: Grounding) -> None:
    """With softmax, raising the best anchor's score far above all others takes the loss to zero."""
    best = box_iou(BOXES[:, None], yxhw_to_yxyx(grounding.anchors)[None]).argmax(dim=1)
    sure = grounding._replace(score_logits=torch.zeros_like(grounding.score_logits).scatter(1, best[:, None], 50.0))
    config = LossConfig(classification="softmax")
    assert float(grounding_loss(sure, BOXES, attention_targets(BOXES, 64), config).classification) < 1e-6


def test_unknown_option() -> None:
    """A misspelt option is refused, with the known ones."""
    with pytest.raises(ValueError, match="focal, binary, softmax"):
        LossConfig(classification="focus")


def slow_target(box: Tensor, side: int) -> Tensor:
    """The attention target at stride 8, cell by cell, from its description."""
    y1, x1, y2, x2 = ((box.double() + 1) / 2 * side).tolist()
    height, width = (y2 - y1) / 2, (x2 - x1) / 2
    cy, cx = (y1 + y2) / 2, (x1 + x2) / 2
    target = torch.zeros(side, side)
    for i in range(side):
        for j in range(side):
            top, bottom = max(i - height / 2, 0), min(i + height / 2, side)
            left, right = max(j - width / 2, 0), min(j + width / 2, side)
            over_y = max(min(bottom, cy + height / 2) - max(top, cy - height / 2), 0)
            over_x = max(min(right, cx + width / 2) - max(left, cx - width / 2), 0)
            union = height * width + (bottom - top) * (right - left) - over_y * over_x
            target[i, j] = (over_y * over_x + 1e-7) / (union + 1e-7)
    return target


def test_attention_targets() -> None:
    """The finest target is the described IoU; the next halves it by averaging 2 x 2 cells."""
    fine, middle, coarse = attention_targets(BOXES, 128)
    for n, box in enumerate(BOXES):
        torch.testing.assert_close(fine[n], slow_target(box, 16), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(middle, torch.nn.functional.avg_pool2d(fine, 2))
    assert [tuple(target.shape) for target in (fine, middle, coarse)] == [(2, 16, 16), (2, 8, 8), (2, 4, 4)]

"""How far answers lie apart."""

from math import inf, nan

import numpy as np
import pytest

from export.parity import LIMITS, Answers, Comparison, ParityError, check_report


def answers(boxes: list[list[float]], **more: list[float]) -> Answers:
    """Answers about pictures without attention, the same but for what is given."""
    rest = {"scores": [0.5] * len(boxes), "attention": [0.1] * len(boxes), "anchors": [7] * len(boxes)} | more
    return {"boxes": np.array(boxes, np.float32)} | {name: np.array(values) for name, values in rest.items()}


def test_boxes_without_area() -> None:
    """Equal boxes are the same even where they have no area; others without area have nothing in common."""
    point = [3, 4, 3, 4]
    same, other = Comparison(), Comparison()
    same.add(answers([point]), answers([point]))
    other.add(answers([point, point]), answers([point, [5, 6, 5, 6]]))
    assert same.report()["mean_iou"] == 1
    check_report(same.report(), LIMITS["fp32"])
    assert other.report()["mean_iou"] == 0.5


@pytest.mark.parametrize("scores", [(0.5, nan), (nan, 0.5), (nan, nan), (inf, 0.5)])
def test_what_is_not_finite(scores: tuple[float, float]) -> None:
    """On either side it is an infinite difference, which no limit lets pass."""
    comparison = Comparison()
    ours, theirs = scores
    comparison.add(answers([[0, 0, 1, 1]], scores=[ours]), answers([[0, 0, 1, 1]], scores=[theirs]))
    assert comparison.report()["scores"] == inf
    with pytest.raises(ParityError, match="scores inf"):
        check_report(comparison.report(), LIMITS["int8"])

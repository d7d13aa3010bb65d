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


def with_candidates(scores: list[float], anchor: int = 7, order: tuple[int, ...] = (0, 1, 2, 3)) -> Answers:
    """Answers about one expression with four candidates of these scores. order: how many hundred pixels from the top
    each of them lies."""
    tops = 100 * np.array(order)
    boxes = np.stack([0 * tops, tops, 0 * tops + 50, tops + 50], axis=1).astype(np.float32)
    more = {"candidate_boxes": boxes[None], "candidate_scores": np.array([scores], np.float32)}
    return {**answers([[0, 0, 50, 50]], scores=scores[:1], anchors=[anchor]), **more}


@pytest.mark.parametrize("value", [nan, inf])
def test_candidate_boxes_that_are_not_finite(value: float) -> None:
    """Any of them is an infinite difference, even of candidates that tie or where another anchor won."""
    scores = [0.9, 0.5, 0.5, 0.5]
    expected, given = with_candidates(scores), with_candidates(scores, anchor=8)
    given["candidate_boxes"][0, 3, 3] = value
    for ours, theirs in ((expected, given), (given, expected), (given, given)):
        comparison = Comparison()
        comparison.add(ours, theirs)
        assert comparison.report()["boxes"] == inf


APART, TIED = [0.9, 0.6, 0.5, 0.2], [0.9, 0.5, 0.5, 0.2]


@pytest.mark.parametrize(
    ("expected", "given", "difference"),
    [
        (APART, with_candidates(APART, order=(3, 0, 1, 2)), 300),
        (APART, with_candidates(APART, order=(0, 2, 1, 3)), 100),
        (TIED, with_candidates(TIED, order=(0, 2, 1, 3)), 0),
        (TIED, with_candidates(TIED, order=(1, 0, 2, 3)), 100),
        (APART, with_candidates(APART, order=(3, 0, 1, 2), anchor=8), 0),
        (APART, with_candidates([0.9, 0.6, 0.5, 0.21], order=(0, 2, 1, 3)), 0),
        (APART, with_candidates([0.9, 0.6, 0.5, 0.21], order=(3, 0, 1, 2)), 300),
    ],
)
def test_candidate_boxes(expected: list[float], given: Answers, difference: float) -> None:
    """They are compared where scores that agree tell candidates apart, the first one wherever the same anchor won."""
    comparison = Comparison()
    comparison.add(with_candidates(expected), given)
    assert comparison.report()["boxes"] == difference

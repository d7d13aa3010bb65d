"""The proof beside every exported file: it answers as the checkpoint does."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from model.boxes import box_iou

Answers = Mapping[str, np.ndarray]  # a graph's outputs by name
Runner = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]  # from a graph's inputs by name to its outputs


class ParityError(RuntimeError):
    """An exported file answers differently from its checkpoint; the message says by how much and where."""


@dataclass(frozen=True)
class Limits:
    """How far a file's answers may lie from the checkpoint's in fp32.

    features: largest difference of a level's features, over the largest value in it. scores, attention: largest
    difference; scores are the candidates' too. boxes: largest difference in pixels where the same anchor won, and of
    candidates that their scores show to be the same. same_anchor: smallest share of expressions where it did. mean_iou:
    smallest mean IoU of the two boxes. accuracy_drop: largest loss of accuracy. Raises ValueError for one that is no
    finite number, with which nothing would be refused.
    """

    features: float
    scores: float
    attention: float
    boxes: float
    same_anchor: float
    mean_iou: float
    accuracy_drop: float

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if not (isinstance(limit, int | float) and np.isfinite(limit)):
                raise ValueError(f"{name} is {limit!r}; a limit is a finite number")


LIMITS = {  # by precision
    "fp32": Limits(1e-4, 1e-4, 1e-4, 0.05, 1.0, 0.999, 0.0),
    "fp16": Limits(0.02, 0.02, 0.02, 8.0, 0.9, 0.98, 0.005),
    "bf16": Limits(0.1, 0.1, 0.1, 40.0, 0.7, 0.9, 0.005),
    "int8": Limits(0.3, 0.25, 0.1, 16.0, 0.85, 0.93, 0.005),  # candidates' scores of the demo network: 0.19
}


class Comparison:
    """Collects how far answers lie from the expected ones."""

    def __init__(self) -> None:
        self._differences: dict[str, float] = {}
        self._same: list[np.ndarray] = []
        self._ious: list[np.ndarray] = []

    def add(self, expected: Answers, given: Answers) -> None:
        """Compare one question's answers, all outputs. Raises ParityError if a shape differs."""
        for name, ours in expected.items():
            if ours.shape != given[name].shape:
                raise ParityError(f"{name} has shape {given[name].shape} and not {ours.shape}")
        if "anchors" in expected:
            same = expected["anchors"] == given["anchors"]
            self._same.append(same)
            ious = box_iou(torch.from_numpy(expected["boxes"]), torch.from_numpy(given["boxes"]))
            equal = (expected["boxes"] == given["boxes"]).all(axis=1)  # boxes without area have no IoU
            self._ious.append(np.where(equal, 1.0, ious.numpy()))
            self._note("scores", expected["scores"], given["scores"])
            self._note("attention", expected["attention"], given["attention"])
            self._note("boxes", expected["boxes"][same], given["boxes"][same])
        if "candidate_scores" in expected:
            self._note("scores", expected["candidate_scores"], given["candidate_scores"])
            self._add_candidate_boxes(expected, given)
        for name in expected:
            if name.startswith("features"):
                scale = float(np.abs(expected[name]).max())
                self._note("features", expected[name] / scale, given[name] / scale)

    def _add_candidate_boxes(self, expected: Answers, given: Answers) -> None:
        """Boxes that are not finite are infinitely far away, and those of the same candidate are compared.

        Which anchor a candidate is, only the first one's answer says. Another is the same one if its expected score is
        further from those before and after it than twice the largest difference in scores of its expression: nearer
        ones may change places. That holds where all scores agree as in fp32, as they do in any precision when a file is
        asked again. Between precisions a few scores move much further than the others, now and then two in opposite
        directions, which changes their places but no score at a place: there the first candidate alone is compared.
        Where another anchor won, nothing is, and of the last place the next score is not known.
        """
        ours, theirs = expected["candidate_boxes"], given["candidate_boxes"]
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            self._differences["boxes"] = float("inf")
            return
        scores = expected["candidate_scores"]
        moved = np.abs(scores - given["candidate_scores"]).max(axis=1, initial=0.0)[:, None]
        apart = (scores[:, :-1] - scores[:, 1:] > 2 * moved) & (moved <= LIMITS["fp32"].scores)
        same = np.zeros(scores.shape, dtype=bool)
        same[:, 1:-1] = apart[:, :-1] & apart[:, 1:]
        same[:, :1] = True
        same &= (expected["anchors"] == given["anchors"])[:, None]
        self._note("boxes", ours[same], theirs[same])

    def report(self) -> dict[str, float]:
        """The names of `Limits` with what was seen, as far as anything was."""
        report = dict(self._differences)
        if self._same:
            same, ious = np.concatenate(self._same), np.concatenate(self._ious)
            report |= {"same_anchor": float(same.mean()), "mean_iou": float(ious.mean()), "expressions": len(same)}
        return report

    def _note(self, name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
        largest = float(np.abs(ours - theirs).max(initial=0.0))
        if not np.isfinite(largest):
            largest = float("inf")  # NaN would be lost in what follows
        self._differences[name] = max(self._differences.get(name, 0.0), largest)


def check_report(report: Mapping[str, Any], limits: Limits) -> None:
    """Raises ParityError naming everything in a report that is beyond its limit."""
    beyond = []
    for name, limit in asdict(limits).items():
        if name in report:
            worse = report[name] < limit if name in ("same_anchor", "mean_iou") else report[name] > limit
            if worse or not np.isfinite(report[name]):
                beyond.append(f"{name} {report[name]:.3g} (limit {limit:g})")
    if beyond:
        raise ParityError(f"the exported file answers differently: {', '.join(beyond)}")

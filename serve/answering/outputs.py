"""From what the network gives to what `gin` answers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.preparation import InvalidInput
from model.presence import Presence

PRESENCE = "presence.json"
MOST = 10  # boxes for one expression
OVERLAP = 0.5  # IoU from which on two boxes are about one and the same thing
NAMES = {"BOX": "boxes", "SCORE": "scores", "ATTENTION": "attention", "UNKNOWN": "unknown"}  # what is sent as it is


class Outputs:
    """threshold: the probability from which on a thing counts as found."""

    def __init__(self, folder: Path, threshold: float) -> None:
        """folder: of the model's version. Raises OSError, ValueError, KeyError or TypeError for a damaged file."""
        path = folder / PRESENCE
        self._presence = Presence.load(path) if path.exists() else None
        self.threshold = threshold

    def answer(self, network: dict[str, np.ndarray], wanted: Sequence[str], top: int) -> dict[str, np.ndarray]:
        """network: an `Answer`. top: boxes for each expression. Returns the wanted outputs by name."""
        answer = {name: network[NAMES[name]] for name in wanted if name in NAMES}
        if "PRESENCE" in wanted or "FOUND" in wanted:
            scores = network["scores"]
            presence = np.full_like(scores, np.nan) if self._presence is None else self._presence(scores)
            answer |= {"PRESENCE": presence, "FOUND": ~(presence < self.threshold)}
        if "TOP_BOX" in wanted or "TOP_SCORE" in wanted:
            boxes, scores = best_apart(network["candidate_boxes"], network["candidate_scores"], top)
            answer |= {"TOP_BOX": boxes, "TOP_SCORE": scores}
        return {name: np.ascontiguousarray(answer[name]) for name in wanted}


def check_top(values: np.ndarray | None) -> int:
    """How many boxes TOP_K asks for. Raises InvalidInput."""
    if values is None:
        return 1
    if values.size != 1 or not 1 <= int(values.flat[0]) <= MOST:
        raise InvalidInput(f"TOP_K: expected one number from 1 to {MOST}, got {values.flatten()[:3].tolist()}")
    return int(values.flat[0])


def best_apart(boxes: np.ndarray, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best boxes of which no two overlap by `OVERLAP` (greedy non-maximum suppression).

    boxes: (N, K, 4), scores: (N, K), best first. Returns (N, count, 4) and (N, count), zeros where there are no more.
    """
    chosen_boxes = np.zeros((len(boxes), count, 4), dtype=boxes.dtype)
    chosen_scores = np.zeros((len(boxes), count), dtype=scores.dtype)
    overlaps = iou(boxes) >= OVERLAP
    for n in range(len(boxes)):
        left = np.ones(boxes.shape[1], dtype=bool)
        for place in range(count):
            if not left.any():
                break
            best = int(left.argmax())
            chosen_boxes[n, place], chosen_scores[n, place] = boxes[n, best], scores[n, best]
            left &= ~overlaps[n, best]
            left[best] = False  # a box without area overlaps nothing, not even itself
    return chosen_boxes, chosen_scores


def iou(boxes: np.ndarray) -> np.ndarray:
    """Of every two of the boxes (..., K, 4): (..., K, K)."""
    one, other = boxes[..., :, None, :], boxes[..., None, :, :]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    common = np.clip(sides, 0, None).prod(axis=-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
    together = area[..., :, None] + area[..., None, :] - common
    return np.divide(common, together, out=np.zeros_like(common), where=together > 0)

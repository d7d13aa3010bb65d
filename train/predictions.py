"""Files of predictions: written, read without trusting them, and scored as the originals' script does."""

import json
import pickle
import reprlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.boxes import box_iou
from model.checkpoint import write_atomically
from train.data.annotations import Box, InvalidData
from train.data.plain_pickle import load_plain_pickle

RIGHT_IOU = 0.5  # in the originals' script a right box overlaps the true one by more than this


@dataclass(frozen=True)
class Prediction:
    """What the network answered to row `row` of a CSV: a box xyxy in pixels and its score."""

    row: int
    box: Box
    score: float


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """JSON lines with the originals' names, or their pickled list where the file's name ends in .pkl."""
    entries = [
        {"id": answer.row, "pred_boxes": list(answer.box), "pred_scores": answer.score} for answer in predictions
    ]
    if Path(path).suffix == ".pkl":
        write_atomically(pickle.dumps(entries), Path(path))
    else:
        write_atomically("".join(json.dumps(entry) + "\n" for entry in entries).encode(), Path(path))


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read either kind of file; scores may be missing, as the originals allow. Raises InvalidData or OSError."""
    if Path(path).suffix == ".pkl":
        entries = load_plain_pickle(path)
        if not isinstance(entries, list):
            raise InvalidData(f"{path} holds a {type(entries).__name__}, not a list of predictions")
        numbered = list(enumerate(entries, start=1))
    else:
        numbered = _read_lines(path)
    if not numbered:
        raise InvalidData(f"{path} holds no predictions")
    predictions = []
    for number, entry in numbered:
        try:
            predictions.append(_parse(entry))
        except ValueError as error:
            raise InvalidData(f"{path}, prediction {number}: {error}") from None
    return predictions


def score_predictions(predictions: Sequence[Prediction], boxes: Sequence[Box]) -> dict[str, Any]:
    """accuracy: share of the distinct rows predicted, the first time each, with IoU over 0.5; right, rows: the two
    numbers; missing: rows of the CSV without a prediction.

    boxes: of all rows of the CSV; nothing overlaps one that is empty or inside out. Raises InvalidData for a row that
    the CSV lacks.
    """
    first: dict[int, Prediction] = {}
    for prediction in predictions:
        if prediction.row >= len(boxes):
            raise InvalidData(f"there is a prediction for row {prediction.row}, but the annotations have {len(boxes)}")
        first.setdefault(prediction.row, prediction)
    predicted = torch.tensor([prediction.box for prediction in first.values()], dtype=torch.float64)
    true = torch.tensor([boxes[row] for row in first], dtype=torch.float64)
    right = int((box_iou(predicted, true) > RIGHT_IOU).sum())
    return {"accuracy": right / len(first), "right": right, "rows": len(first), "missing": len(boxes) - len(first)}


def _read_lines(path: str | Path) -> list[tuple[int, Any]]:
    entries = []
    with open(path, encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    entries.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise InvalidData(f"{path} is not a file of JSON lines: {error}") from None
    return entries


def _parse(entry: Any) -> Prediction:
    if not isinstance(entry, dict) or not {"id", "pred_boxes"} <= entry.keys():
        raise ValueError(f"{reprlib.repr(entry)} is not a dictionary with id and pred_boxes")
    row, box, score = entry["id"], entry["pred_boxes"], entry.get("pred_scores", 0.0)
    if isinstance(row, float) and row.is_integer():  # the originals' ids come from a tensor of floats
        row = int(row)
    if isinstance(row, bool) or not isinstance(row, int) or row < 0:
        raise ValueError(f"id is {reprlib.repr(row)}, not a row's number")
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(_finite(side) for side in box):
        raise ValueError(f"pred_boxes is {reprlib.repr(box)}, not four finite numbers")
    if not _finite(score):
        raise ValueError(f"pred_scores is {reprlib.repr(score)}, not a finite number")
    x1, y1, x2, y2 = (float(side) for side in box)
    return Prediction(row, (x1, y1, x2, y2), float(score))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max

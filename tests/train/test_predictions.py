"""Files of predictions."""

import json
import os
import pickle
from pathlib import Path

import pytest

from train.data.annotations import InvalidData, Row
from train.predictions import Prediction, read_predictions, score_predictions, write_predictions

ROWS = [Row(number, Path("a.jpg"), (0, 0, 10, 10), ("it",)) for number in range(4)]


class Evil:
    """Pickled, it asks for a command to be run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.pkl"])
def test_written_and_read(tmp_path: Path, name: str) -> None:
    """Either kind of file gives back what was written; the pickle is the originals' plain list."""
    predictions = [Prediction(0, (1.5, 2, 3, 4), 0.25), Prediction(7, (0, 0, 1e3, 1), 1.0)]
    write_predictions(tmp_path / name, predictions)
    assert read_predictions(tmp_path / name) == predictions
    if name.endswith("pkl"):
        first = pickle.loads((tmp_path / name).read_bytes())[0]
        assert first == {"id": 0, "pred_boxes": [1.5, 2, 3, 4], "pred_scores": 0.25}


def test_scored_as_the_originals() -> None:
    """An IoU of exactly one half is wrong, of two predictions for a row the first counts, others are missing."""
    boxes = {0: (0, 0, 10, 5), 1: (0, 0, 10, 5.01), 2: (20, 20, 30, 30)}
    predictions = [Prediction(row, box, 1.0) for row, box in boxes.items()] + [Prediction(2, (0, 0, 10, 10), 1.0)]
    assert score_predictions(predictions, ROWS) == {"accuracy": 1 / 3, "right": 1, "rows": 3, "missing": 1}
    with pytest.raises(InvalidData, match="row 4"):
        score_predictions([Prediction(4, (0, 0, 1, 1), 1.0)], ROWS)


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        ({"pred_boxes": [0, 0, 1, 1]}, "id"),
        ({"id": -1, "pred_boxes": [0, 0, 1, 1]}, "-1"),
        ({"id": 0.5, "pred_boxes": [0, 0, 1, 1]}, "0.5"),
        ({"id": True, "pred_boxes": [0, 0, 1, 1]}, "True"),
        ({"id": 0, "pred_boxes": [0, 0, 1]}, "four"),
        ({"id": 0, "pred_boxes": [0, 0, 1, float("nan")]}, "finite"),
        ({"id": 0, "pred_boxes": [0, 0, 1, float("inf")]}, "finite"),
        ({"id": 0, "pred_boxes": [0, 0, 1, 10**400]}, "finite"),
        ({"id": 0, "pred_boxes": "abcd"}, "four"),
        ({"id": 0, "pred_boxes": [0, 0, 1, 1], "pred_scores": "high"}, "high"),
        ([0, 0, 1, 1], "dictionary"),
    ],
)
@pytest.mark.parametrize("name", ["bad.jsonl", "bad.pkl"])
def test_bad_entries(tmp_path: Path, entry: object, cause: str, name: str) -> None:
    """Each is refused with its number in the file and its value."""
    good = {"id": 0, "pred_boxes": [0, 0, 1, 1]}
    path = tmp_path / name
    path.write_bytes(
        pickle.dumps([good, entry]) if name.endswith("pkl") else f"{json.dumps(good)}\n{json.dumps(entry)}\n".encode()
    )
    with pytest.raises(InvalidData, match=f"{name}, prediction 2: .*{cause}"):
        read_predictions(path)


def test_hostile_files(tmp_path: Path) -> None:
    """Files that are none, and pickles that would run something, are refused and run nothing."""
    marker = tmp_path / "marker"
    files = {
        "command.pkl": pickle.dumps([Evil(marker)]),
        "nested.pkl": pickle.dumps({"a": [{"id": Evil(marker)}]}),
        "protocol0.pkl": pickle.dumps(Evil(marker), protocol=0),
        "named.pkl": pickle.dumps([os.system]),
        "half.pkl": pickle.dumps([{"id": 0, "pred_boxes": [0, 0, 1, 1]}])[:20],
        "dictionary.pkl": pickle.dumps({"id": 0}),
        "nothing.pkl": b"",
        "empty.jsonl": b"",
        "text.jsonl": b"hello\n",
        "bytes.jsonl": b"\xff\xfe\x00",
        "deep.jsonl": b"[" * 100_000,
        "pickle.jsonl": pickle.dumps([Evil(marker)]),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidData, match=name):
            read_predictions(tmp_path / name)
    assert not marker.exists()

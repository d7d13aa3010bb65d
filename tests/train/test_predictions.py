"""Files of predictions."""

import json
import os
import pickle
from pathlib import Path

import pytest

from train.data.annotations import InvalidData
from train.evaluate import main
from train.predictions import Prediction, read_predictions, score_predictions, write_predictions

BOXES = [(0.0, 0.0, 10.0, 10.0)] * 4


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
    assert score_predictions(predictions, BOXES) == {"accuracy": 1 / 3, "right": 1, "rows": 3, "missing": 1}
    with pytest.raises(InvalidData, match="row 4"):
        score_predictions([Prediction(4, (0, 0, 1, 1), 1.0)], BOXES)


def test_only_boxes_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row of the CSV counts, whatever else is in it; a box without an inside is missed even by itself. One that
    is no box is named."""
    rows = [
        '7,"[0, 0, 10, 10]",?',
        '7,"[9, 0, 2, 10]",dog',
        '7,"[5, 5, 5, 9]",dog',
        '7,"[0, 0, 10, 10]",[]',
        ',"[0, 0, 1, 1]",',
    ]
    (tmp_path / "test.csv").write_text("\n".join(["img_id,bbox,query", *rows]))
    boxes = [(0, 0, 10, 10), (9, 0, 2, 10), (5, 5, 5, 9), (0, 0, 10, 10)]
    lines = [json.dumps({"id": row, "pred_boxes": box}) for row, box in enumerate(boxes)]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    command = [str(tmp_path / "answers.jsonl"), str(tmp_path / "test.csv")]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == {"accuracy": 0.5, "right": 2, "rows": 4, "missing": 1}
    (tmp_path / "test.csv").write_text('bbox\n"[0, 0, 1, 1]"\n"[0, 0, 1]"\n')
    assert main(command) == 2
    assert "test.csv, line 3: bbox" in capsys.readouterr().err


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
        "deep.pkl": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
        "pickle.jsonl": pickle.dumps([Evil(marker)]),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidData, match=name):
            read_predictions(tmp_path / name)
    assert not marker.exists()

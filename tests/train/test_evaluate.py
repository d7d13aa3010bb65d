"""Evaluation: every row once, whatever the number of processes, and what a file of predictions is worth."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.train.ranks import together
from tests.train.runs import read
from train.data.annotations import read_rows
from train.data.scenes import write_scenes
from train.evaluate import by_length, exchange_expressions, main
from train.evaluation import Answers, Scores, breakdown


def answers(ious: list[float], words: list[int] | None = None) -> Answers:
    """Answers with these IoUs."""
    count = len(ious)
    return Answers(
        torch.arange(count), torch.tensor(words or [1] * count), torch.zeros(count, 4), torch.zeros(count),
        torch.tensor(ious), torch.ones(count),
    )  # fmt: skip


def test_scores() -> None:
    """Shares at each threshold, which itself is enough; rows that could not be asked are missed; nothing is NaN."""
    scores = Scores.of(answers([0.0, 0.25, 0.5, 0.6, 0.75]))
    assert (scores.accuracy_25, scores.accuracy, scores.accuracy_75) == (0.8, 0.6, 0.2)
    assert scores.mean_iou == pytest.approx(0.42)
    assert Scores.of(answers([1.0, 1.0, 1.0]), unusable=1) == Scores(0.75, 0.75, 0.75, 0.75, 0.75, 4)
    assert math.isnan(Scores.of(answers([])).accuracy)


def test_breakdown() -> None:
    """Each group has the scores of its rows; a sentence of any length is in one."""
    groups = breakdown(answers([0.9, 0.1, 0.7]), {0: "cat", 2: "dog", 1: "cat"})
    assert groups["cat"].accuracy == 0.5
    assert groups["dog"] == Scores.of(answers([0.7]))
    assert by_length(answers([0.0] * 4, words=[1, 5, 10, 60])) == {0: "1", 1: "4-5", 2: "6-10", 3: "over 10"}


def test_scores_that_are_no_numbers() -> None:
    """A network with broken weights has no accuracy."""
    good = answers([1.0, 0.5, 0.2])
    assert good.checked() is good
    with pytest.raises(ValueError, match=r"^1 of 3 scores are not a number"):
        good._replace(scores=torch.tensor([0.1, math.nan, 0.3])).checked()


def test_any_number_of_processes(checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """7 pictures on 2 and on 3 processes give the predictions and the scores that one process gives."""
    csv = write_scenes(tmp_path, 7, seed=8, expressions=3)
    asked = [str(checkpoint_path), str(csv), "--images", str(tmp_path / "images"), "--workers", "0", "--predictions"]
    assert main([*asked, str(tmp_path / "alone.jsonl")]) == 0
    expected = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert expected["rows"] == 21
    for count in (2, 3):
        done = together(main, [*asked, str(tmp_path / f"{count}.jsonl")], processes=count)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-6)
        one_process, several = (read(tmp_path / f"{name}.jsonl") for name in ("alone", count))
        assert [line["id"] for line in several] == list(range(21))
        for one, other in zip(one_process, several, strict=True):
            assert one["pred_boxes"] == pytest.approx(other["pred_boxes"], abs=1e-3)


def test_exchanged_expressions(tmp_path: Path) -> None:
    """Each row keeps its box and takes the expression of another box of its picture."""
    rows = read_rows(write_scenes(tmp_path, 10, seed=6), tmp_path / "images")
    named = {(row.image, row.expressions): row.box for row in rows}
    exchanged = exchange_expressions(rows)
    assert len(exchanged) == len(rows)
    for row in exchanged:
        assert named[row.image, row.expressions] != row.box


def test_evaluation(checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last line is JSON with accuracy and rows, also where the predictions cannot be written; bad files end with
    exit code 2 and one line."""
    csv = write_scenes(tmp_path, 4, seed=7)
    predictions = tmp_path / "predictions.jsonl"
    arguments = [str(checkpoint_path), str(csv), "--images", str(tmp_path / "images"), "--workers", "0"]
    arguments += ["--predictions", str(predictions)]
    assert main(arguments) == 0
    printed, said = capsys.readouterr()
    report = json.loads(printed.splitlines()[-1])
    assert report["rows"] == 16
    lacking = [row for row in read_rows(csv, tmp_path / "images") if "heart" in row.expressions[0].split()]
    assert len(said.splitlines()) == 1
    assert f" heart ({len(lacking)})" in said
    assert 0 <= report["accuracy"] <= 1
    assert main([*arguments, "--exchange"]) == 0
    capsys.readouterr()
    assert main([str(predictions), str(csv)]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 16
    assert main([*arguments[:-1], str(tmp_path / "images")]) == 2
    printed, message = capsys.readouterr()
    assert json.loads(printed.splitlines()[-1]) == report
    assert "images could not be written" in message
    categories = (tmp_path / "scenes_categories.csv").read_text()
    (tmp_path / "scenes_categories.csv").write_text(f"{categories}16")
    assert main(arguments) == 2
    assert "scenes_categories.csv, line 18: " in capsys.readouterr().err
    (tmp_path / "scenes_categories.csv").unlink()
    (tmp_path / "images" / "000001.jpg").unlink()
    assert main(arguments) == 2
    assert "000001.jpg" in capsys.readouterr().err
    (tmp_path / "short.pth").write_bytes(checkpoint_path.read_bytes()[:1000])
    assert main([str(tmp_path / "short.pth"), *arguments[1:]]) == 2
    assert "short.pth cannot be read as a checkpoint" in capsys.readouterr().err
    torch.save({"epoch": 3}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert main([str(tmp_path / "old.pth"), *arguments[1:]]) == 2
    assert "`python -m model.convert`" in capsys.readouterr().err
    assert main([str(csv), *arguments[1:]]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1

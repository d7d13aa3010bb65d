"""Calibration: probabilities that fit, rates that are counted right, and a checkpoint that keeps what it had."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import Checkpoint
from model.presence import Presence, logits
from train.calibrate import fit, main, measure, read_absent
from train.data.scenes import write_scenes


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Of logits."""
    return 1 / (1 + np.exp(-values))


def test_fit() -> None:
    """Scores whose logits are two normal distributions have a known best line, however uneven the sides."""
    random = np.random.default_rng(0)
    present, absent = random.normal(2, 1, 40_000), random.normal(0, 1, 8_000)
    presence = fit(sigmoid(present), sigmoid(absent))
    assert presence.scale == pytest.approx(2, abs=0.1)  # (difference of means) / variance
    assert presence.offset == pytest.approx(-2, abs=0.1)
    assert presence(sigmoid(np.array([1.0]))) == pytest.approx(0.5, abs=0.02)
    assert np.isfinite(logits(np.array([0.0, 1.0], np.float32))).all()


def test_measure() -> None:
    """Rates at a threshold, which itself accepts; ties count half in the area."""
    report = measure(np.array([0.9, 0.5, 0.4]), np.array([0.5, 0.1]))
    assert report["area"] == pytest.approx((2 + 1.5 + 1) / 6, abs=1e-4)
    rates = {rate["threshold"]: rate for rate in report["thresholds"]}
    assert rates[0.5] == {"threshold": 0.5, "false_accept": 0.5, "false_reject": 0.3333}


@pytest.mark.parametrize("given", [True, False])
def test_command(checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: bool) -> None:
    """With expressions that are known to name nothing, or with those of other pictures; weights stay as they were."""
    csv = write_scenes(tmp_path, 8, seed=5)
    if not given:
        (tmp_path / "scenes_absent.csv").unlink()
    before = Checkpoint.load(checkpoint_path)
    before.save(tmp_path / "copy.pth")
    arguments = [str(tmp_path / "copy.pth"), str(csv), "--images", str(tmp_path / "images"), "--workers", "0"]
    assert main(arguments) == 0
    printed, said = capsys.readouterr()
    report = json.loads(printed.splitlines()[-1])
    after = Checkpoint.load(tmp_path / "copy.pth")
    assert after.presence == Presence(report["scale"], report["offset"]) != before.presence
    assert all((after.weights[name] == tensor).all() for name, tensor in before.weights.items())
    assert report["present"] == 16
    assert f"what is there: 32 rows of {csv}; what is not: " in said
    assert said.endswith(f"told apart: {report['area']:.1%} of the pairs of one of each; by chance it would be 50 %\n")
    if given:
        assert f"rows of {tmp_path / 'scenes_absent.csv'}\n" in said
    else:
        assert report["absent"] == 16
        assert "32 rows exchanged between pictures\n" in said


def test_bad_input(checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A single picture, and rows that cannot be asked about, are named in one line; the checkpoint stays."""
    csv = write_scenes(tmp_path, 1, seed=5)
    content = checkpoint_path.read_bytes()
    arguments = [str(checkpoint_path), str(csv), "--images", str(tmp_path / "images"), "--workers", "0"]
    assert main(arguments) == 2
    assert "about 1 picture" in capsys.readouterr().err
    for bad in ("000000.jpg,", "000000.jpg,?!", f"000000.jpg,{'star ' * 51}", "nowhere.jpg,star"):
        (tmp_path / "scenes_absent.csv").write_text(f"img_id,query\n000000.jpg,star\n{bad}\n")
        assert main(arguments) == 2
        message = capsys.readouterr().err
        assert "scenes_absent.csv, line 3: " in message
        assert len(message.splitlines()) == 1
    assert checkpoint_path.read_bytes() == content
    assert read_absent(tmp_path / "other.csv", tmp_path, 50) == []


def test_scores_that_are_no_numbers(checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network with broken weights is not calibrated; its checkpoint stays."""
    csv, broken = write_scenes(tmp_path, 4, seed=5), tmp_path / "broken.pth"
    weights = checkpoint.weights | {"head.output.weight": checkpoint.weights["head.output.weight"] * float("nan")}
    dataclasses.replace(checkpoint, weights=weights).save(broken)
    content = broken.read_bytes()
    assert main([str(broken), str(csv), "--images", str(tmp_path / "images"), "--workers", "0"]) == 2
    assert "scores are not a number" in capsys.readouterr().err
    assert broken.read_bytes() == content


def test_names_without_suffix(tmp_path: Path) -> None:
    """What is not there is asked about the same pictures, whether or not the CSV gives their names a suffix."""
    write_scenes(tmp_path, 1, seed=5)
    (tmp_path / "val_absent.csv").write_text("img_id,query\n000000,star\n000000.jpg,star\n")
    rows = read_absent(tmp_path / "val.csv", tmp_path / "images", 50)
    assert [row.image for row in rows] == [tmp_path / "images" / "000000.jpg"] * 2


def test_one_half_is_not_asked(checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Expressions of what is not there about pictures of one half alone can teach or measure nothing."""
    csv = write_scenes(tmp_path, 4, seed=5)
    arguments = [str(checkpoint_path), str(csv), "--images", str(tmp_path / "images"), "--workers", "0"]
    for picture in ("000000.jpg", "000001.jpg"):
        (tmp_path / "scenes_absent.csv").write_text(f"img_id,query\n{picture},star\n")
        assert main(arguments) == 2
        assert "either half" in capsys.readouterr().err

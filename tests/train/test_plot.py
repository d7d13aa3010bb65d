"""Curves of runs as a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from train.plot import COLOURS, main


def write_run(folder: Path, epochs: int, best: float) -> Path:
    """A run's history."""
    folder.mkdir()
    lines = [
        {"epoch": n + 1, "losses": {"total": 3 / (n + 1)}, "val": {"accuracy": best * n / epochs}, "lr": 1e-4 / (n + 1)}
        for n in range(epochs)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_every_run_has_its_colour(tmp_path: Path) -> None:
    """Three runs of different lengths, one of a single epoch, are all to be seen."""
    runs = [write_run(tmp_path / f"run{n}", epochs, 0.9) for n, epochs in enumerate((10, 4, 1))]
    assert main([*map(str, runs), "--out", str(tmp_path / "curves.png")]) == 0
    pixels = np.array(Image.open(tmp_path / "curves.png").convert("RGB"))
    for colour in COLOURS[:3]:
        exact = np.round(np.array(to_rgb(colour)) * 255)
        assert (pixels == exact).all(axis=2).sum() > 30


@pytest.mark.parametrize(
    "content", [None, b"", b"hello\n", b"\xff\n", b'{"epoch": 1}\n', b'{"epoch": 1, "losses": {"total": "x"}}\n']
)
def test_no_history(tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without one, an empty and a damaged one: one line, exit code 2, no picture."""
    if content is not None:
        (tmp_path / "history.jsonl").write_bytes(content)
    assert main([str(tmp_path), "--out", str(tmp_path / "curves.png")]) == 2
    message = capsys.readouterr().err
    assert "history.jsonl" in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "curves.png").exists()

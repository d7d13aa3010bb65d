"""How far a job is, for logs and for terminals."""

import sys
from types import SimpleNamespace

import pytest

from train.progress import Steps, track


def test_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where stderr is no terminal: none in the first minute, then one with the time that is left."""
    clock = [1000.0]
    monkeypatch.setattr("train.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    with Steps("epoch 1/6: step", 3000) as shown, Steps("epoch 1/6: step", 3000, shown=False) as silent:
        for done in (59, 100, 159, 160):
            clock[0] = 1000.0 + done
            shown(done, f"loss {done}")
            silent(done)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/6: step 100 of 3000, loss 100, 0:48:20 left",
        "epoch 1/6: step 160 of 3000, loss 160, 0:47:20 left",
    ]


def test_items(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All come through; each counts as done once the next is asked for."""
    monkeypatch.setattr("train.progress.EVERY", 0.0)
    assert list(track("abc", "drawing scenes:", 3)) == list("abc")
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [f"drawing scenes: {done} of 3" for done in (1, 2, 3)]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no lines beside it."""
    monkeypatch.setattr("train.progress.EVERY", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Steps("asking: batch", 2) as progress:
        progress(2)
    drawn = capsys.readouterr().err
    assert "2/2" in drawn
    assert "2 of 2" not in drawn

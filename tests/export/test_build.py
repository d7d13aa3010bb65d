"""Exports beside other work on the same files."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from export import torchscript
from export.build import Request, staging
from export.manifest import hash_file
from export.parity import LIMITS
from model.checkpoint import Checkpoint
from model.original import ARCHITECTURES
from model.words import Vocabulary


def test_one_export_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second export into a folder says that it waits, leaves the first one's files alone and then has its turn; what
    a killed one left is removed, and no lock stays behind."""
    (tmp_path / ".export-killed").mkdir()
    waiting, steps = threading.Event(), []

    def say(step: str) -> None:
        steps.append(step)
        waiting.set()

    def second() -> None:
        with staging(tmp_path):
            steps.append("second")

    monkeypatch.setattr("export.build.say", say)
    thread = threading.Thread(target=second)
    with staging(tmp_path) as folder:
        (folder / "file").touch()
        thread.start()
        assert waiting.wait(60)
        assert list(tmp_path.rglob("*")) == [folder, folder / "file"]
        steps.append("first")
    thread.join(60)
    assert steps == [f"waiting for another export into {tmp_path}", "first", "second"]
    assert not list(tmp_path.iterdir())


def test_ctrl_c(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stops an export with one line and leaves nothing; exit code 130."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.build.rewrite", stop)
    assert torchscript.main([str(checkpoint_path), "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "python -m export.torchscript: interrupted\n"
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_replaced(checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash is of the bytes that were loaded, whatever a training run writes meanwhile."""
    path = shutil.copy(checkpoint_path, tmp_path / "best.pth")
    load = torch.load

    def replaced(*arguments: Any, **more: Any) -> Any:
        path.write_bytes(b"of the next epoch")
        return load(*arguments, **more)

    monkeypatch.setattr("model.checkpoint.torch.load", replaced)
    _, sha256 = Request(path, "fp32", LIMITS["fp32"]).load()
    assert sha256 == hash_file(checkpoint_path)


def test_another_size_of_the_original_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converted network is exported with the levels that its authors published for the size."""
    (tmp_path / "ours.pth").touch()
    converted = Checkpoint(ARCHITECTURES[0].at_size(320), Vocabulary([]), weights={})
    monkeypatch.setattr("export.build.Checkpoint.load", lambda *_: converted)
    checkpoint, _ = Request(tmp_path / "ours.pth", "fp32", LIMITS["fp32"], size=608).load()
    assert checkpoint.config == ARCHITECTURES[0].at_size(608)

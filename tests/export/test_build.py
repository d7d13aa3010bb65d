"""Which checkpoint is exported, and what is left of an export that was stopped."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from export import torchscript
from export.build import Request, read_checkpoint
from export.manifest import hash_file
from model.checkpoint import Checkpoint
from model.original import ARCHITECTURES
from model.words import Vocabulary


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
    """What is exported and its hash are of the bytes that were read first, whatever a training run writes meanwhile."""
    path = shutil.copy(checkpoint_path, tmp_path / "best.pth")
    load = torch.load

    def replaced(*arguments: Any, **more: Any) -> Any:
        path.write_bytes(b"of the next epoch")
        return load(*arguments, **more)

    def stop(request: Request, *_: object) -> None:
        assert request.sha256 == hash_file(checkpoint_path)
        raise KeyboardInterrupt

    monkeypatch.setattr("model.checkpoint.torch.load", replaced)
    monkeypatch.setattr("export.command.build", stop)
    assert torchscript.main([str(path), "--out", str(tmp_path / "out")]) == 130


def test_another_size_of_the_original_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converted network is exported with the levels that its authors published for the size."""
    (tmp_path / "ours.pth").touch()
    converted = Checkpoint(ARCHITECTURES[0].at_size(320), Vocabulary([]), weights={})
    monkeypatch.setattr("export.build.Checkpoint.load", lambda *_: converted)
    checkpoint, _ = read_checkpoint(tmp_path / "ours.pth", size=608)
    assert checkpoint.config == ARCHITECTURES[0].at_size(608)

"""Which checkpoint is exported, and what is left of an export that was stopped."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from export import torchscript
from export.build import Request
from export.manifest import hash_file
from export.parity import LIMITS
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

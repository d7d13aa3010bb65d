"""Exporting the network's variants: those with attention answer as the checkpoint, the others are refused."""

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from export import onnx, torchscript
from export.build import Request, build, read_checkpoint
from export.formats import Format
from export.parity import LIMITS
from model.checkpoint import Checkpoint
from model.gin import GIN


def variant(checkpoint: Checkpoint, changes: dict[str, Any]) -> Checkpoint:
    """A checkpoint of the small network with changes, whose norms have seen images."""
    torch.manual_seed(0)
    config = dataclasses.replace(checkpoint.config, **changes)
    network = GIN(config, len(checkpoint.vocabulary)).train()
    with torch.no_grad():
        for _ in range(10):
            network(torch.rand(8, 3, 64, 64), torch.randint(1, 9, (8, 5)), torch.randint(1, 6, (8,)))
        network.head.output.weight.mul_(5)
    return Checkpoint(config, checkpoint.vocabulary, network.eval().state_dict())


@pytest.mark.parametrize("kind", [onnx.FORMAT, torchscript.FORMAT], ids=lambda kind: kind.name)
def test_exports(checkpoint: Checkpoint, tmp_path: Path, kind: Format) -> None:
    """Without AFS and the finest level, and with words that nothing reads, the file answers the same."""
    changes = {"afs": False, "pyramid_levels": (4, 5, 6, 7), "blind": "language"}
    variant(checkpoint, changes).save(tmp_path / "variant.pth")
    out = tmp_path / "out"
    out.mkdir()
    request = Request(*read_checkpoint(tmp_path / "variant.pth"), "fp32", LIMITS["fp32"])
    report = build(request, kind, out, ["gin"])
    assert report["graphs"]["gin"]["parity"]["same_anchor"] == 1


@pytest.mark.parametrize("module", [onnx, torchscript])
def test_no_attention_to_serve(
    checkpoint: Checkpoint, tmp_path: Path, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network without GARAN is refused in one line that names the setting; no file is written."""
    variant(checkpoint, {"afs": False, "garan": False}).save(tmp_path / "zsgnet.pth")
    assert module.main([str(tmp_path / "zsgnet.pth"), "--repository", str(tmp_path / "repository")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "garan is false" in message
    assert not [path for path in (tmp_path / "repository").rglob("*") if path.is_file()]

"""Exported files answer as the checkpoint, and a file that does not is not written."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx as onnx_format
import pytest
import torch

from export import onnx, torchscript
from export.parity import ParityError, Runner
from export.served import DYNAMIC_AXES, INPUTS, OUTPUTS, ServedNetwork, make_question
from model.checkpoint import Checkpoint
from model.preparation import Preparation

FORMATS: dict[str, tuple[ModuleType, str, Callable[[Path], Runner]]] = {
    "onnx": (onnx, "gin_onnx/1/model.onnx", onnx.onnx_runner),
    "torchscript": (torchscript, "gin_torchscript/1/model.pt", torchscript.torchscript_runner),
}


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Runner, dict[str, Any]]:
    """The folder of an exported file, a way to ask it, and the report."""
    module, name, runner = FORMATS[request.param]
    repository = tmp_path_factory.mktemp(request.param)
    report = module.export(checkpoint, repository)
    return (repository / name).parent, runner(repository / name), report


@pytest.mark.parametrize(
    ("images", "lengths"), [(1, [1]), (1, [2]), (3, [1, 2, 25, 50, 49]), (1, [50] * 9), (5, [3, 3]), (2, [13])]
)
def test_answers_as_pytorch(
    exported: tuple[Path, Runner, dict[str, Any]], checkpoint: Checkpoint, images: int, lengths: list[int]
) -> None:
    """Any number of images, expressions and words: the same boxes, scores, attention and winning anchors."""
    question = make_question(checkpoint, images, lengths, seed=100)
    with torch.inference_mode():
        expected = [output.numpy() for output in ServedNetwork(checkpoint.network())(*question.tensors)]
    boxes, scores, attention, anchors = exported[1](tuple(tensor.numpy() for tensor in question.tensors))
    np.testing.assert_allclose(boxes, expected[0], atol=0.05)
    np.testing.assert_allclose(scores, expected[1], atol=1e-4)
    np.testing.assert_allclose(attention, expected[2], atol=1e-4)
    np.testing.assert_array_equal(anchors, expected[3])
    assert np.ptp(expected[0], axis=0).max() > 1 or len(lengths) == 1  # the answers differ, so this says something


def test_report(exported: tuple[Path, Runner, dict[str, Any]]) -> None:
    """The comparison lies beside the file: differences, winning anchors, box IoU, versions."""
    folder, _, report = exported
    assert json.loads((folder / "parity.json").read_text()) == report
    assert report["same_anchor"] == 1
    assert report["lowest_iou"] > 0.99
    assert report["boxes"] <= 0.05
    assert {path.name for path in folder.iterdir()} >= {"parity.json", Path(report["file"]).name}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_onnx_graph(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Inputs, outputs and free axes are the contract's; nothing in the graph is random; preparing is described."""
    onnx.export(checkpoint, tmp_path)
    graph = onnx_format.load(tmp_path / "gin_onnx" / "1" / "model.onnx").graph
    assert tuple(value.name for value in graph.input) == INPUTS
    assert tuple(value.name for value in graph.output) == OUTPUTS
    for value in graph.input:
        axes = [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        free = {axis: name for axis, name in enumerate(axes) if isinstance(name, str)}
        assert free == DYNAMIC_AXES[value.name]
    assert not {node.op_type for node in graph.node} & {"Dropout", "RandomNormal", "RandomUniform", "Bernoulli", "Loop"}
    preparation = Preparation.load(tmp_path / "gin_prepare" / "1" / "preparation.json")
    assert preparation.vocabulary.words == checkpoint.vocabulary.words


@pytest.mark.parametrize("name", FORMATS)
def test_wrong_file_is_not_written(
    name: str, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the exported network differs in one weight, the export fails, leaves nothing, and a former file stays."""
    module, place, _ = FORMATS[name]
    former = tmp_path / place
    former.parent.mkdir(parents=True)
    former.write_bytes(b"former")
    write = getattr(module, f"write_{name}")
    bias = checkpoint.weights["head.output.bias"].clone()
    bias[4::5] += torch.linspace(0, 0.5, len(bias) // 5)
    changed = Checkpoint(checkpoint.config, checkpoint.vocabulary, checkpoint.weights | {"head.output.bias": bias})
    monkeypatch.setattr(module, f"write_{name}", lambda _, path: write(changed, path))
    with pytest.raises(ParityError, match="differently"):
        module.export(checkpoint, tmp_path)
    assert former.read_bytes() == b"former"
    assert [path.name for path in former.parent.iterdir()] == [former.name]


@pytest.mark.parametrize("name", FORMATS)
def test_not_a_checkpoint(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text file, or none, is refused in one line; exit code 2."""
    module = FORMATS[name][0]
    (tmp_path / "text.pth").write_text("hello")
    for path in (tmp_path / "text.pth", tmp_path / "nowhere.pth"):
        assert module.main([str(path), "--repository", str(tmp_path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1

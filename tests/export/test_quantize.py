"""int8: a layer that loses by it stays in fp32, in the whole graph and in its part."""

import dataclasses
import shutil
from pathlib import Path

import onnx as onnx_format
import pytest
import torch
from torch import Tensor, nn

from export import onnx
from export.graphs import ANSWERS, ASKED, FEATURES, INPUTS, Graph
from export.parity import LIMITS, ParityError
from export.quantize import quantize
from export.questions import Question, make_question
from model.checkpoint import Checkpoint


class Layers(nn.Module):
    """Three convolutions. What the second reads lies between 0 and 1; beside it are thousands, which its weights do not
    read but its scale must hold."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3)
        with torch.no_grad():
            self.second.weight[:, 1] = 0

    def look(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of three strides."""
        narrow = self.first(images.permute(0, 3, 1, 2) / 255).sigmoid()
        features = self.second(torch.cat([narrow[:, :1], 5_000 * narrow[:, 1:]], dim=1))
        return features, features[:, :, ::2, ::2], features[:, :, ::4, ::4]

    def answer(
        self, features: Tensor, ids: Tensor, lengths: Tensor, index: Tensor, sizes: Tensor
    ) -> tuple[Tensor, ...]:
        """Boxes, scores, attention and anchors."""
        maps = self.third(features)[index]
        words = 0.001 * (ids.float().mean(1) + lengths)
        scores = (20 * maps.mean((2, 3))[:, 0] + words).sigmoid()
        return torch.cat([sizes, 2 * sizes], dim=1)[index].float(), scores, maps[:, 1].sigmoid(), 0 * lengths


class ImagePart(Layers):
    """Images to features."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See `Layers`."""
        return self.look(images)


class ExpressionPart(Layers):
    """Features to answers."""

    def forward(
        self,
        features_8: Tensor,
        features_16: Tensor,
        features_32: Tensor,
        expression_ids: Tensor,
        lengths: Tensor,
        image_index: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, ...]:
        """See `Layers`."""
        unused = 0 * (features_16.mean() + features_32.mean())
        return self.answer(features_8 + unused, expression_ids, lengths, image_index, image_sizes)


class Whole(Layers):
    """Images to answers."""

    def forward(
        self, images: Tensor, expression_ids: Tensor, lengths: Tensor, image_index: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, ...]:
        """See `Layers`."""
        return self.answer(self.look(images)[0], expression_ids, lengths, image_index, image_sizes)


@pytest.fixture(scope="module")
def questions(checkpoint: Checkpoint) -> list[Question]:
    """Of which the first is what the files are exported with."""
    return [make_question(checkpoint, images=2, lengths=[1, 4, 7], seed=seed) for seed in range(4)]


@pytest.fixture(scope="module")
def files(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three in fp32."""
    folder = tmp_path_factory.mktemp("files")
    image = Graph(ImagePart(), ("images",), FEATURES)
    expression, whole = Graph(ExpressionPart(), (*FEATURES, *ASKED), ANSWERS), Graph(Whole(), INPUTS, ANSWERS)
    for name, graph in {"gin_image": image, "gin_expression": expression, "gin": whole}.items():
        onnx.FORMAT.write(graph, questions[0] | image(questions[0]), folder / f"{name}.onnx", {"graph": name})
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path) -> Path:
    """The same, to be quantized."""
    return shutil.copytree(files, tmp_path / "files")


def test_what_loses_is_left_out(folder: Path, questions: list[Question]) -> None:
    """The one that loses most alone, and only it, where that is enough; each file still says what it is
    and imports nothing that it does not use."""
    facts = quantize(folder, questions, dataclasses.replace(LIMITS["int8"], scores=0.02))
    assert facts["int8_left_out"].keys() == {"second.weight"}
    assert facts["int8_layers"] == 2
    kept = {"gin": {"first", "third"}, "gin_image": {"first"}, "gin_expression": {"third"}}
    for name, layers in kept.items():
        model = onnx_format.load(folder / f"{name}.onnx")
        quantized = {v.name for v in model.graph.initializer if v.name.endswith("weight_quantized")}
        assert quantized == {f"{layer}.weight_quantized" for layer in layers}
        assert {entry.key: entry.value for entry in model.metadata_props} == {"graph": name}
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", onnx.OPSET)]


def test_the_quantizer_fails(folder: Path, questions: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk, where it reads again what it could write in part only: one line names the file."""

    def fail(*_: object, **__: object) -> None:
        onnx_format.ModelProto.FromString(b"half")

    monkeypatch.setattr("export.quantize.quant_pre_process", fail)
    with pytest.raises(ValueError, match=r"gin\.onnx cannot be quantized with temporary files in .*: Error parsing"):
        quantize(folder, questions, LIMITS["int8"])


def test_no_selection(folder: Path, questions: list[Question]) -> None:
    """Where none keeps to the limits, that is said with what the last one had."""
    with pytest.raises(ParityError, match=r"no selection of layers keeps to the limits; the last trial: .*'scores'"):
        quantize(folder, questions, dataclasses.replace(LIMITS["int8"], mean_iou=2.0))

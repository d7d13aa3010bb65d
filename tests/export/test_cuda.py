"""The form for a GPU answers as the network it was made from."""

import contextlib
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from export.cuda import Captured, for_cuda
from export.cuda.convolutions import ConvolutionReLU, FoldedStem, fuse_convolutions, is_stem
from export.cuda.maps import channels_last
from export.cuda.scores import half_scores
from export.cuda.streams import SideBySide
from export.graphs import ANSWERS, INPUTS, Graph, make_graphs
from export.precision import HALVES, lower
from export.questions import make_question
from export.rewrite import rewrite, rewritings_for
from model.checkpoint import Checkpoint
from tests.blocks import ROOT, blocks
from tests.conftest import make_checkpoint
from tests.export.test_rewrite import largest_difference, make_inputs, make_network


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own operations stand in for those of a GPU."""

    def relu(x: Tensor, weight: Tensor, bias: Tensor, *shape: object) -> Tensor:
        return F.relu(F.conv2d(x, weight, bias, *shape))

    def add_relu(x: Tensor, weight: Tensor, residual: Tensor, alpha: float, bias: Tensor, *shape: object) -> Tensor:
        return F.relu(F.conv2d(x, weight, bias, *shape) + alpha * residual)

    monkeypatch.setattr(torch, "cudnn_convolution_relu", relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu)
    monkeypatch.setattr("export.cuda.scores.single_product", lambda one, other: one.float() @ other.float())


def test_channels_last() -> None:
    """To 1e-9 in double precision, on maps that lie either way."""
    network = make_network().double()
    changed = channels_last(rewrite(network, rewritings_for("fp16")))
    images, *expressions = make_inputs((64, 96), 7, torch.float64)
    assert largest_difference(network, changed, (images, *expressions)) <= 1e-9
    images, changed = images.to(memory_format=torch.channels_last), changed.to(memory_format=torch.channels_last)
    assert largest_difference(network, changed, (images, *expressions)) <= 1e-9


@pytest.mark.parametrize(("backbone", "fused"), [("resnet18", 17), ("resnet50", 49), ("shufflenet_v2_x0_5", 36)])
def test_fused_convolutions(backbone: str, fused: int, on_a_cpu: None) -> None:
    """All that a rectification follows are cuDNN's, the first on squares of pixels; added biases are one."""
    network = make_network(backbone=backbone).double()
    changed = fuse_convolutions(rewrite(network))
    modules = list(changed.backbone.modules())
    assert sum(isinstance(module, ConvolutionReLU) for module in modules) == fused
    assert sum(isinstance(module, FoldedStem) for module in modules) == 1
    projections = [module for module in modules if isinstance(module, nn.Conv2d) and module.groups == 1]
    assert all(module.bias is None for module in projections if backbone != "shufflenet_v2_x0_5")
    assert largest_difference(network, changed, make_inputs((64, 96), 3, torch.float64)) <= 1e-9


def test_stems() -> None:
    """Only a convolution of colours that halves the picture is folded."""
    assert is_stem(nn.Conv2d(3, 8, 7, stride=2, padding=3))
    assert is_stem(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    others = [
        nn.Conv2d(3, 8, 7, stride=1, padding=3),
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.Conv2d(3, 8, 7, stride=2, padding=2),
        nn.Conv2d(16, 8, 7, stride=2, padding=3),
    ]
    assert not any(is_stem(other) for other in others)


@pytest.mark.parametrize("precision", HALVES)
def test_scores(precision: str, on_a_cpu: None) -> None:
    """Products of two halves are those of single precision, which the coarse ones alone are not."""
    network = lower(rewrite(make_network(), rewritings_for(precision)), precision)
    changed = half_scores(network)
    cells = torch.randn(2, 50, network.config.head_width, dtype=HALVES[precision])
    expected, scores = network.head.score(cells.float()), changed.head.score(cells)  # type: ignore[operator, union-attr]
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    weight = changed.head.score.weight  # type: ignore[union-attr]
    weight.data[len(weight) // 2 :] = 0  # type: ignore[index, operator, union-attr, arg-type]
    assert (changed.head.score(cells) - expected).abs().max() > 2e-5  # type: ignore[operator, union-attr]
    patches = torch.randn(2, 3, 9 * network.config.head_width, dtype=HALVES[precision])
    expected = network.head.deltas(patches.float())  # type: ignore[operator, union-attr]
    assert torch.equal(changed.head.deltas(patches), expected)  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("missing", ["norms", "upsampling"])
def test_rewritings_that_are_needed(missing: str) -> None:
    """Without one of them nothing is made, rather than something else."""
    names = [name for name in rewritings_for("fp16") if name != missing]
    with pytest.raises(ValueError, match='needs the rewritings "norms" and "upsampling"'):
        channels_last(rewrite(make_network(), names))


@pytest.mark.parametrize("changes", [{"backbone": "resnet18"}, {"transposed_diffusion": False}])
def test_side_by_side(changes: dict[str, Any], on_a_cpu: None) -> None:
    """In pieces it answers as in one."""
    checkpoint = make_checkpoint()
    network = make_network(**changes)
    network = fuse_convolutions(channels_last(rewrite(network, rewritings_for("fp16"))))
    asked = make_question(checkpoint, images=2, lengths=[3, 1, 4], seed=0)
    expected = make_graphs(network)["gin"](asked)
    answers = Graph(SideBySide(network).eval(), INPUTS, ANSWERS)(asked)
    assert all(torch.equal(answers[name], expected[name]) for name in ANSWERS)


def test_maps_lie_channels_last(on_a_cpu: None) -> None:
    """All that one piece hands to another, so that nothing is turned round on the way."""
    network = make_network(backbone="resnet18").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pieces = SideBySide(fuse_convolutions(channels_last(rewrite(network, rewritings_for("fp16"))))).eval()
    maps: list[Tensor] = []
    for name, piece in pieces.named_children():
        if name != "answer":
            piece.register_forward_hook(lambda _module, _inputs, output: maps.extend(tree_leaves(output)))
    Graph(pieces, INPUTS, ANSWERS)(make_question(make_checkpoint(), images=2, lengths=[3, 1, 4], seed=0))
    maps = [features for features in maps if features.ndim == 4]
    assert len(maps) == 3 + 9 + 3
    assert all(features.is_contiguous(memory_format=torch.channels_last) for features in maps)


@pytest.mark.parametrize("changes", [{"afs": False}, {"garan": False}, {"blind": "language"}])
def test_not_side_by_side(changes: dict[str, Any]) -> None:
    """A network that lacks a part is refused."""
    with pytest.raises(ValueError, match="only GIN with all its parts"):
        SideBySide(make_network(**changes))


def test_shapes_of_fused_kernels() -> None:
    """Compilers, which run nothing, see the shape and the layout that cuDNN gives."""
    with FakeTensorMode():
        features, residual = (torch.empty(2, channels, 9, 5, device="cuda", dtype=torch.float16) for channels in (4, 8))
        fused = ConvolutionReLU(nn.Conv2d(4, 8, 3, padding=1, device="cuda", dtype=torch.float16))
        for answer in (fused(features), fused(features, residual)):
            assert answer.shape == (2, 8, 9, 5)
            assert answer.is_contiguous(memory_format=torch.channels_last)
            assert (answer.device, answer.dtype) == (features.device, features.dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("backbone", ["resnet50", "shufflenet_v2_x0_5"])
def test_on_a_gpu(precision: str, backbone: str) -> None:
    """Captured and asked anew, the network answers as it does uncaptured, and nearly as the one that was trained."""
    network = make_network(backbone=backbone)
    with torch.no_grad():
        network.head.output.weight.mul_(50)  # type: ignore[union-attr, operator]
    checkpoint = Checkpoint(network.config, make_checkpoint().vocabulary, network.state_dict())
    first, second = (make_question(checkpoint, images=3, lengths=[3, 1, 4, 2, 6], seed=seed) for seed in (0, 1))
    original = make_graphs(network)["gin"]
    assert (original(first)["scores"] - original(second)["scores"]).abs().max() > 0.05
    lowered = lower(rewrite(network, rewritings_for(precision)), precision)
    captured = Captured(for_cuda(lowered), {name: tensor.cuda() for name, tensor in first.items()})
    gc.collect()
    overwritten = torch.full((1 << 28,), torch.nan, device="cuda")  # what is still needed is not among it
    graph = for_cuda(lowered)
    for asked in (second, first):
        answers = {name: tensor.cpu() for name, tensor in captured(asked).items()}
        uncaptured = graph({name: tensor.cuda() for name, tensor in asked.items()})
        for name in ("scores", "attention"):
            torch.testing.assert_close(answers[name], uncaptured[name].cpu(), atol=0.01, rtol=0)
        torch.testing.assert_close(answers["scores"], original(asked)["scores"], atol=0.1, rtol=0)
    with pytest.raises(ValueError, match="lengths is .* .2,.; captured for .* .5,."):
        captured(first | {"lengths": first["lengths"][:2]})
    assert overwritten.isnan().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_documented() -> None:
    """What docs/export.md says to do in Python does it."""
    code, *_ = (block.text for block in blocks("docs/export.md") if block.language == "python")
    names: dict[str, Any] = {}
    with contextlib.chdir(ROOT):
        exec(code, names)
    expected = make_graphs(names["checkpoint"].network())["gin"]({n: t.cpu() for n, t in names["example"].items()})
    torch.testing.assert_close(names["answers"]["scores"].cpu(), expected["scores"], atol=0.1, rtol=0)

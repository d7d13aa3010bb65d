"""Every rewriting answers as the network it was made from."""

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from export.rewrite import REWRITINGS, rewrite, rewritings_for
from export.rewrite.winner import ScoreFirst
from model.config import ModelConfig
from model.gin import GIN
from tests.conftest import SMALL

SIZES = [(64, 64), (96, 160), (32, 64), (160, 32)]
ASKED = [*((size, 7) for size in SIZES), ((64, 64), 1), ((32, 64), 64)]  # size of the images, number of expressions
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5}
OF_SPLIT_HEADS = ("winograd", "canvas")
ALONE = [("split-head", name) if name in OF_SPLIT_HEADS else (name,) for name in REWRITINGS]
TOGETHER = [rewritings_for(precision) for precision in ("fp32", "fp16", "int8")]


def make_network(**changes: Any) -> GIN:
    """A small network with random weights, whose norms and biases are not what they begin with."""
    torch.manual_seed(1)
    network = GIN(dataclasses.replace(SMALL, **({"backbone": "shufflenet_v2_x0_5"} | changes)), 30)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean") or (tensor.ndim == 1 and tensor.is_floating_point()):
                tensor.add_(0.2 * torch.randn_like(tensor))
    return network.eval()


def make_inputs(size: tuple[int, int], expressions: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Three images, and expressions of 1 to 6 words about them."""
    images = torch.rand(3, 3, *size, dtype=dtype)
    lengths = torch.randint(1, 7, (expressions,))
    return images, torch.randint(1, 30, (expressions, 6)), lengths, torch.randint(3, (expressions,))


@torch.inference_mode()
def answer(network: GIN, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Anchors, scores, deltas and attention."""
    answers = network(*inputs)
    return answers.anchors, answers.score_logits, answers.box_deltas, *answers.attention_logits


def distance(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> float:
    """The largest difference of two answers, whose anchors must be the same."""
    assert torch.equal(ours[0], theirs[0])
    return max(float((a - b).abs().max()) for a, b in zip(ours[1:], theirs[1:], strict=True))


def largest_difference(one: GIN, other: GIN, inputs: tuple[torch.Tensor, ...]) -> float:
    """Of what two networks answer."""
    return distance(answer(one, inputs), answer(other, inputs))


@functools.cache
def original(transposed: bool, dtype: torch.dtype) -> GIN:
    """The network that is rewritten."""
    return make_network(transposed_diffusion=transposed).to(dtype)


@functools.cache
def original_answer(
    transposed: bool, dtype: torch.dtype, size: tuple[int, int], expressions: int
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Inputs and what it answers."""
    inputs = make_inputs(size, expressions, dtype)
    return inputs, answer(original(transposed, dtype), inputs)


@pytest.mark.parametrize("names", [*ALONE, *TOGETHER], ids="+".join)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_the_same_answers(names: tuple[str, ...], transposed: bool, dtype: torch.dtype) -> None:
    """To 1e-9 in double precision and 1e-5 in single, at odd and non-square sizes, for 1, 7 and 64 expressions."""
    network = original(transposed, dtype)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rewritten = rewrite(network, names)
    for size, expressions in ASKED:
        inputs, expected = original_answer(transposed, dtype, size, expressions)
        difference = distance(answer(rewritten, inputs), expected)
        assert difference <= LIMITS[dtype], (size, expressions)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_other_backbones(backbone: str) -> None:
    """Norms fold into residual networks too."""
    network = make_network(backbone=backbone, pyramid_levels=(4, 5, 6, 7)).double()
    rewritten = rewrite(network)
    assert not [module for module in rewritten.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert largest_difference(network, rewritten, make_inputs((64, 96), 3, torch.float64)) <= 1e-9


@pytest.mark.parametrize("parts", [{"afs": False}, {"garan": False}, {"afs": False, "garan": False}, {"blind": "both"}])
def test_variants(parts: dict[str, Any]) -> None:
    """What a variant lacks is not rewritten; the rest is."""
    network = make_network(**parts).double()
    assert largest_difference(network, rewrite(network), make_inputs((64, 96), 5, torch.float64)) <= 1e-9


@torch.inference_mode()
def test_deltas_on_request() -> None:
    """At any anchors, those at the edges too, they are what the whole head says."""
    network = rewrite(make_network().double())
    assert isinstance(network.head, ScoreFirst)
    for size in SIZES:
        images, ids, lengths, image_index = make_inputs(size, 4, torch.float64)
        whole = network(images, ids, lengths, image_index)
        features, expressions = network.encode_image(images), network.encode_expression(ids, lengths)
        pyramid, expressions, _ = network.reason(features, expressions, image_index)
        sizes = [(level.shape[2], level.shape[3]) for level in pyramid]
        scores, cells = network.head.scores(pyramid, expressions)
        anchors = scores.shape[1]
        index = torch.arange(anchors).expand(4, -1)
        torch.testing.assert_close(scores, whole.score_logits, atol=1e-12, rtol=0)
        torch.testing.assert_close(network.head.deltas_at(cells, sizes, index), whole.box_deltas, atol=1e-12, rtol=0)


def test_winograd_is_less_work() -> None:
    """The head's convolutions need less than half of their products."""
    network = rewrite(make_network(pyramid_width=128, head_width=128), ["split-head"])
    maps, expressions = [torch.rand(1, 128, 40, 40), torch.rand(1, 128, 10, 10)], torch.rand(1, 32)
    counts = []
    for head in (network.head, rewrite(network, ["winograd"]).head):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            head.read(maps, expressions)
        counts.append(counter.get_total_flops())
    assert counts[1] < counts[0] / 2


def test_unknown_rewriting() -> None:
    """Is named, with those that are known."""
    with pytest.raises(ValueError, match="magic; known: norms"):
        rewrite(make_network(), ["magic"])


def test_one_cell_upsampled() -> None:
    """Of a one-cell map the bilinear upsampling is constant."""
    network = make_network(pyramid_levels=(3, 4, 5)).double()
    assert isinstance(network.config, ModelConfig)
    rewritten = rewrite(network, ["upsampling"])
    assert largest_difference(network, rewritten, make_inputs((32, 32), 2, torch.float64)) <= 1e-9

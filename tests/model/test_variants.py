"""The network's variants: what each answers, what it depends on and what of it learns."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.fpn import FeaturePyramid
from model.gin import GIN, Grounding
from model.loss import LossConfig, grounding_loss
from model.targets import attention_targets

ZSGNET: dict[str, Any] = {"afs": False, "garan": False}
SSD = ZSGNET | {"backbone": "ssd_vgg16", "image_size": 268}
PARTS = [{}, {"afs": False}, {"garan": False}, ZSGNET]
BLINDNESS = [{"blind": "language"}, {"blind": "image"}, {"blind": "both"}]
NEVER = "expression.backward_lstm.weight_hh_l0"  # it starts from zero and reads one word


def variant(checkpoint: Checkpoint, changes: dict[str, Any]) -> GIN:
    """The small network with changes, whose norms have seen images."""
    torch.manual_seed(0)
    config = dataclasses.replace(checkpoint.config, **changes)
    network = GIN(config, len(checkpoint.vocabulary)).train()
    if config.backbone != "ssd_vgg16":  # which has no norms
        with torch.no_grad():
            for _ in range(10):
                ask(network, torch.rand(8, 3, 64, 64), torch.randint(1, 9, (8, 3)))
    return network.eval()


def ask(network: GIN, images: Tensor, ids: Tensor) -> Grounding:
    """Ground one expression of full length per image."""
    return network(images, ids, torch.full((len(ids),), ids.shape[1]))


def cells(grounding: Grounding) -> int:
    """Positions over all levels."""
    return grounding.score_logits.shape[1] // 9


@pytest.mark.parametrize("changes", [a | b for a in PARTS for b in [{}, *BLINDNESS]], ids=str)
def test_shapes_and_dependence(checkpoint: Checkpoint, changes: dict[str, Any]) -> None:
    """Anchors stay in every variant; attention is GARAN's; the answer changes with all but what it is blind to."""
    network = variant(checkpoint, changes)
    images, ids = torch.rand(2, 3, 64, 64), torch.tensor([[2, 3, 4], [2, 3, 4]])
    with torch.inference_mode():
        first = ask(network, images, ids)
        other_image = ask(network, images.flip(0), ids)
        other_words = ask(network, images, torch.tensor([[5, 6], [5, 6]]))
    assert cells(first) == 8 * 8 + 4 * 4 + 2 * 2 + 1 + 1 + 1
    assert first.box_deltas.shape == (2, cells(first) * 9, 4)
    assert first.anchors.shape == (cells(first) * 9, 4)
    sizes = [tuple(logits.shape) for logits in first.attention_logits]
    assert sizes == ([(2, 8, 8), (2, 4, 4), (2, 2, 2)] if network.config.garan else [])
    blind = network.config.blind
    assert torch.equal(first.score_logits, other_image.score_logits) == (blind in ("image", "both"))
    assert torch.equal(first.score_logits, other_words.score_logits) == (blind in ("language", "both"))


def silent(network: GIN, images: Tensor, ids: Tensor) -> set[str]:
    """Names of the parameters that get no gradient from the whole loss."""
    grounding = ask(network.train(), images, ids)
    boxes = torch.tensor([[-0.5, -0.6, 0.3, 0.2]]).expand(len(ids), -1)
    targets = attention_targets(boxes, images.shape[2])
    losses = grounding_loss(grounding, boxes, targets, LossConfig())
    assert bool(torch.isfinite(losses.total))
    losses.total.backward()
    return {name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())}


@pytest.mark.parametrize("changes", [*PARTS, *(ZSGNET | blind for blind in BLINDNESS)], ids=str)
def test_what_learns(checkpoint: Checkpoint, changes: dict[str, Any]) -> None:
    """Every parameter gets a gradient, but for those of what a network is blind to."""
    network = variant(checkpoint, changes)
    blind = network.config.blind
    unheard = tuple(["expression."] if blind in ("language", "both") else [])
    unheard += ("backbone.", "fpn.") if blind in ("image", "both") else ()
    expected = {name for name, _ in network.named_parameters() if name.startswith(unheard)} | {NEVER}
    assert silent(network, torch.rand(4, 3, 64, 64), torch.randint(2, 9, (4, 3))) == expected


def test_blind_network_attends_still(checkpoint: Checkpoint) -> None:
    """Blind to the image, GIN's attention is supervised all the same: only what comes after it learns nothing."""
    network = variant(checkpoint, {"blind": "image"})
    still = silent(network, torch.rand(4, 3, 64, 64), torch.randint(2, 9, (4, 3))) - {NEVER}
    parts = {name.split(".")[0] for name in still}
    assert parts == {"garan", "fpn"}
    assert {name.split(".")[2] for name in still if name.startswith("garan")} == {"diffuse_key", "value", "norm"}


@pytest.mark.parametrize("levels", [(3, 4, 5, 6, 7, 8), (4, 5, 6, 7, 8)])
def test_ssd(checkpoint: Checkpoint, levels: tuple[int, ...]) -> None:
    """ZSGNet with SSD-VGG16: six maps or, without the first, five; a black image is no division by zero."""
    network = variant(checkpoint, SSD | {"pyramid_levels": levels})
    images = torch.rand(2, 3, 268, 268)
    images[1] = 0
    with torch.no_grad():  # no bias lights up a black image
        for name, parameter in network.backbone.named_parameters():
            if name.startswith("vgg") and name.endswith("bias"):
                parameter.zero_()
    dropped = set() if 3 in levels else {"backbone.project.0.weight", "backbone.project.0.bias"}
    assert silent(network, images, torch.randint(2, 9, (2, 3))) == dropped | {NEVER}
    with torch.inference_mode():
        grounding = ask(network.eval(), images, torch.randint(2, 9, (2, 3)))
    sides = dict(zip(range(3, 9), (34, 17, 9, 5, 3, 1), strict=True))
    assert cells(grounding) == sum(sides[level] ** 2 for level in levels)
    assert bool(grounding.score_logits.isfinite().all())


@pytest.mark.parametrize("size", [75, 300])
def test_sides_are_rounded_up(checkpoint: Checkpoint, size: int) -> None:
    """Without AFS and GARAN each map has half the former's side, rounded up, and anchors on every cell."""
    network = variant(checkpoint, ZSGNET | {"image_size": size})
    with torch.inference_mode():
        grounding = ask(network, torch.rand(1, 3, size, size), torch.tensor([[2, 3]]))
    sides = [-(-size // 2**level) for level in range(3, 8)]
    assert cells(grounding) == sum(side * side for side in sides) + 1
    assert len(grounding.anchors) == grounding.score_logits.shape[1]


def test_many_expressions_on_one_image(checkpoint: Checkpoint) -> None:
    """ZSGNet's pyramid knows no language: one encoding serves several expressions as each alone."""
    network = variant(checkpoint, ZSGNET)
    ids, lengths = torch.tensor([[2, 3], [4, 5]]), torch.tensor([2, 2])
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        together = network(image, ids, lengths, torch.zeros(2, dtype=torch.int64))
        alone = [network(image, ids[n : n + 1], lengths[n : n + 1]) for n in range(2)]
    expected = torch.cat([one.score_logits for one in alone])
    torch.testing.assert_close(together.score_logits, expected, atol=1e-5, rtol=1e-5)


def test_names_of_the_default_network_stay() -> None:
    """Checkpoints from before there were variants hold exactly these parts, of which none is a variant's."""
    with torch.device("meta"):
        names = GIN(ModelConfig(), vocabulary_size=9).state_dict()
    assert {name.split(".")[0] for name in names} == {"backbone", "expression", "afs", "garan", "fpn", "head"}
    assert len(names) == 526


def test_levels_left_out_keep_their_weights() -> None:
    """The authors' checkpoints hold the finest convolutions even where level 3 is left out; they change nothing."""
    torch.manual_seed(0)
    maps = [torch.rand(1, 8, side, side) for side in (19, 10, 5)]
    whole, coarse = FeaturePyramid([8] * 3, 4, (3, 4, 5, 6, 7, 8)), FeaturePyramid([8] * 3, 4, (4, 5, 6, 7))
    assert whole.state_dict().keys() == coarse.state_dict().keys()
    coarse.load_state_dict(whole.state_dict())
    for expected, features in zip(whole(maps)[1:5], coarse(maps), strict=True):
        torch.testing.assert_close(features, expected)

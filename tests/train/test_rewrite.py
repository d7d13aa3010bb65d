"""What is trained in place of the network as published: other operations, the same numbers."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from model.garan import GlobalAttentiveReasoning
from model.gin import GIN
from tests.conftest import SMALL
from train.rewrite import rewrite_if_the_same

CHANGES: list[dict[str, Any]] = [
    {},
    {"transposed_diffusion": True},
    {"afs": False},
    {"garan": False},
    {"afs": False, "garan": False},
    {"blind": "language"},
    {"pyramid_levels": (4, 5, 6, 7)},
    {"image_size": 96},
]


def learn(network: GIN) -> tuple[Tensor, ...]:
    """Answers to five questions about three pictures, after which the gradients of all that is answered are there."""
    size = network.config.image_size
    random = torch.Generator().manual_seed(1)
    pictures = torch.rand(3, 3, size, size, generator=random, dtype=torch.float64)
    ids = torch.randint(2, 20, (5, 4), generator=random)
    torch.manual_seed(2)  # of dropout
    grounding = network(pictures, ids, torch.tensor([4, 2, 1, 3, 4]), torch.tensor([0, 1, 2, 2, 0]))
    answers = (grounding.score_logits, grounding.box_deltas, *grounding.attention_logits)
    weighted = [(torch.rand(one.shape, generator=random, dtype=torch.float64) * one).sum() for one in answers]
    torch.stack(weighted).sum().backward()
    return answers


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_the_same_numbers(changes: dict[str, Any], training: bool) -> None:
    """Answers, gradients and the norms' statistics of both networks, under the same names."""
    torch.manual_seed(0)
    published = GIN(dataclasses.replace(SMALL, **changes), 20).double().train(training)
    rewritten = copy.deepcopy(published)
    assert rewrite_if_the_same(rewritten)
    rewritten.train(training).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for one, other in zip(learn(published), learn(rewritten), strict=True):
        assert (one - other).abs().max() < 1e-9
    gradients = {name: parameter.grad for name, parameter in published.named_parameters()}
    largest = max(gradient.abs().max() for gradient in gradients.values() if gradient is not None)
    for name, parameter in rewritten.named_parameters():
        gradient, ours = gradients.pop(name), parameter.grad
        if gradient is None:  # what nothing depends on
            assert ours is None or not ours.any()
        else:
            assert ours is not None
            assert (gradient - ours).abs().max() < 1e-9 * largest
    assert not gradients
    state = rewritten.state_dict()
    assert list(state) == list(published.state_dict())
    for name, tensor in published.state_dict().items():
        assert (tensor.double() - state[name].double()).abs().max() < 1e-9


def test_a_part_that_somebody_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not replaced by what does not do the same, which nobody would notice; its mode stays too."""
    torch.manual_seed(0)
    network = GIN(SMALL, 20)
    network.backbone.eval()
    before = GlobalAttentiveReasoning.forward

    def changed(self: GlobalAttentiveReasoning, features: Tensor, expressions: Tensor) -> tuple[Tensor, Tensor]:
        reasoned, attention = before(self, features, expressions)
        return reasoned + 0.1 * features, attention

    monkeypatch.setattr(GlobalAttentiveReasoning, "forward", changed)
    parts = {name: (module, module.training) for name, module in network.named_modules()}
    assert not rewrite_if_the_same(network)
    assert {name: (module, module.training) for name, module in network.named_modules()} == parts

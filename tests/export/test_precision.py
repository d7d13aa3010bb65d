"""Half precision where it does no harm."""

import pytest
import torch

from export.precision import HALVES, KEPT, lower
from export.rewrite import rewrite, rewritings_for
from tests.export.test_rewrite import make_network


@pytest.mark.parametrize("precision", HALVES)
def test_what_is_kept(precision: str) -> None:
    """The named parts keep every bit; all else is in half precision; the network that was given stays as it is."""
    network = rewrite(make_network(), rewritings_for(precision))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    lowered = lower(network, precision)
    for name, tensor in lowered.state_dict().items():
        if name.startswith((*KEPT, "head.score_bias")):
            assert torch.equal(tensor, before[name]), name
        elif tensor.is_floating_point():
            assert tensor.dtype == HALVES[precision], name
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with torch.no_grad():
        lowered.expression.embedding.weight.zero_()
    assert not torch.equal(network.expression.embedding.weight, lowered.expression.embedding.weight)


def test_single_precision() -> None:
    """Is the network itself."""
    network = make_network()
    assert lower(network, "fp32") is network

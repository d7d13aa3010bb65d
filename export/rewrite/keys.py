"""GARAN without keys and values at every position.

query . (W z + b) = (W' query) . z + query . b, so the expression asks the map itself; and the attention weights sum to
one, so the value of the collected map is collected value. Both leave two products per position of all projections.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.garan import GlobalAttentiveReasoning
from model.gin import GIN


class AbsorbedKeys(nn.Module):
    """Stands in for a `GlobalAttentiveReasoning`."""

    def __init__(self, garan: GlobalAttentiveReasoning) -> None:
        super().__init__()
        self.heads, self.transposed_diffusion, self.norm = garan.heads, garan.transposed_diffusion, garan.norm
        self.collect = _absorb(garan, garan.collect_key)
        self.diffuse = _absorb(garan, garan.diffuse_key)
        C, G = garan.value.out_channels, self.heads
        assert garan.value.bias is not None
        value = garan.value.weight.detach().view(G, C // G, C)
        self.value = nn.Parameter(value.transpose(1, 2).contiguous())  # (G, C, d)
        self.value_bias = nn.Parameter(garan.value.bias.detach().view(G, C // G).clone())

    def forward(self, features: Tensor, expressions: Tensor) -> tuple[Tensor, Tensor]:
        """As `GlobalAttentiveReasoning.forward`."""
        N, C, h, w = features.shape
        G = self.heads
        positions = features.view(N, C, h * w)
        logits = self._ask(self.collect, expressions, positions)  # (N, G, hw)
        collected = logits.softmax(dim=-1) @ positions.transpose(1, 2)  # (N, G, C)
        value = (collected[:, :, None] @ self.value).squeeze(2) + self.value_bias  # (N, G, d)
        diffuse = self._ask(self.diffuse, expressions, positions).sigmoid()
        if self.transposed_diffusion:
            diffuse = diffuse.view(N, G, h, w).transpose(2, 3).reshape(N, G, h * w)
        diffused = (value[..., None] * diffuse[:, :, None]).view(N, C, h, w)
        reasoned = F.leaky_relu(self.norm(diffused + features), 0.1)
        return reasoned, logits.mean(dim=1).view(N, h, w)

    def _ask(self, question: nn.Linear, expressions: Tensor, positions: Tensor) -> Tensor:
        N, C, _ = positions.shape
        asked = question(expressions).view(N, self.heads, C + 1)
        return asked[..., :C] @ positions + asked[..., C:]


def _absorb(garan: GlobalAttentiveReasoning, key: nn.Conv2d) -> nn.Linear:
    """From an expression to what it asks of each position, per head C numbers and an offset: (D) -> (G * (C + 1))."""
    G, C, D = garan.heads, key.in_channels, garan.query.in_features
    d = C // G
    assert key.bias is not None
    # the offset is one more channel, whose value is one everywhere
    keys = torch.cat((key.weight.detach().view(G, d, C), key.bias.detach().view(G, d, 1)), dim=2).double()
    query = garan.query.weight.detach().view(G, d, D).double() / math.sqrt(d)
    bias = garan.query.bias.detach().view(G, d).double() / math.sqrt(d)
    absorbed = nn.Linear(D, G * (C + 1))
    dtype = key.weight.dtype
    absorbed.weight = nn.Parameter(torch.einsum("gdc,gde->gce", keys, query).reshape(-1, D).to(dtype))
    absorbed.bias = nn.Parameter(torch.einsum("gdc,gd->gc", keys, bias).reshape(-1).to(dtype))
    return absorbed


def absorb_keys(network: GIN) -> GIN:
    """Replace GARAN at every level."""
    network = copy.deepcopy(network).eval()
    if network.config.garan:
        for index, garan in enumerate(network.garan):
            if isinstance(garan, GlobalAttentiveReasoning):
                network.garan[index] = AbsorbedKeys(garan)
    return network

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
        self.ask = _absorb(garan)
        C, G = garan.value.out_channels, self.heads
        assert garan.value.bias is not None
        value = garan.value.weight.detach().view(G, C // G, C)
        self.value = nn.Parameter(value.transpose(1, 2).contiguous())  # (G, C, d)
        self.value_bias = nn.Parameter(garan.value.bias.detach().view(G, C // G).clone())

    def forward(self, features: Tensor, expressions: Tensor) -> tuple[Tensor, Tensor]:
        """As `GlobalAttentiveReasoning.forward`."""
        N, C, h, w = features.shape
        G = self.heads
        positions = features.flatten(2)
        # per head what is asked of each position to collect, then to diffuse; and an offset for each
        asked, offsets = self.ask(expressions).split((2 * G * C, 2 * G), dim=1)
        answers = asked.view(N, 2 * G, C) @ positions + offsets[:, :, None]
        logits, diffuse = answers.chunk(2, dim=1)  # (N, G, hw)
        collected = logits.softmax(dim=-1) @ positions.transpose(1, 2)  # (N, G, C)
        value = (collected[:, :, None] @ self.value).squeeze(2) + self.value_bias  # (N, G, d)
        diffuse = diffuse.sigmoid()
        if self.transposed_diffusion:
            diffuse = diffuse.view(N, G, h, w).transpose(2, 3).reshape(N, G, h * w)
        diffused = (value[..., None] * diffuse[:, :, None]).view(N, C, h, w)
        reasoned = F.leaky_relu(self.norm(features + diffused), 0.1)  # the sum lies in memory as its first term does
        return reasoned, logits.mean(dim=1).view(N, h, w)


def _absorb(garan: GlobalAttentiveReasoning) -> nn.Linear:
    """From an expression to what it asks of each position, for collecting and then for diffusing, per head: C numbers
    for each, then the offsets: (D) -> (2 * G * C + 2 * G)."""
    G, C, D = garan.heads, garan.value.in_channels, garan.query.in_features
    d = C // G
    query = garan.query.weight.detach().view(G, d, D).double() / math.sqrt(d)
    bias = garan.query.bias.detach().view(G, d).double() / math.sqrt(d)
    keys, offsets = [], []
    for key in (garan.collect_key, garan.diffuse_key):
        assert key.bias is not None
        keys.append(key.weight.detach().view(G, d, C).double())
        offsets.append(key.bias.detach().view(G, d, 1).double())
    parts = keys + offsets  # an offset is one more channel, whose value is one everywhere
    absorbed = nn.Linear(D, 2 * G * (C + 1))
    weight = torch.cat([torch.einsum("gdc,gde->gce", part, query).reshape(-1, D) for part in parts])
    absorbed.weight = nn.Parameter(weight.to(garan.query.weight.dtype))
    absorbed.bias = nn.Parameter(
        torch.cat([torch.einsum("gdc,gd->gc", part, bias).flatten() for part in parts]).to(garan.query.bias.dtype)
    )
    return absorbed


def absorb_keys(network: GIN) -> GIN:
    """Replace GARAN at every level."""
    network = copy.deepcopy(network).eval()
    if network.config.garan:
        for index, garan in enumerate(network.garan):
            if isinstance(garan, GlobalAttentiveReasoning):
                network.garan[index] = AbsorbedKeys(garan)
    return network

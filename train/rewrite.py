"""Exact rewritings for training: the same parameters under the same names, other operations, two thirds of the work.

What of `export.rewrite` leaves the weights as they are holds for gradients too. Only the order of additions differs.
Who changes a part of the network that one of these stands in for changes that one too, or trains without these.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.afs import Branch
from model.anchors import cell_centres, on_device
from model.garan import GlobalAttentiveReasoning
from model.gin import GIN
from model.head import Head
from model.taps import convolve_upsampled, taps_inside


class EarlyBranch(nn.Module):
    """Stands in for a `Branch` that upsamples: its 3x3 convolution is done at the small size."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.factor = 2**-branch.octaves
        self.conv1, self.norm1, self.conv2, self.norm2 = branch.conv1, branch.norm1, branch.conv2, branch.norm2

    def forward(self, features: Tensor) -> Tensor:
        """As `Branch.forward`."""
        taps = self.conv1.weight.permute(3, 2, 0, 1).flatten(0, 2)
        assert self.conv1.bias is not None
        convolved = convolve_upsampled(features, taps, self.conv1.bias, self.factor)
        return F.leaky_relu(self.norm2(self.conv2(F.leaky_relu(self.norm1(convolved), 0.1))), 0.1)


class AbsorbedKeys(nn.Module):
    """Stands in for a `GlobalAttentiveReasoning`: the expression asks the map itself, and what it collects becomes the
    value, so there are neither keys nor values at every position."""

    def __init__(self, garan: GlobalAttentiveReasoning) -> None:
        super().__init__()
        self.heads, self.transposed_diffusion = garan.heads, garan.transposed_diffusion
        self.query, self.collect_key, self.diffuse_key = garan.query, garan.collect_key, garan.diffuse_key
        self.value, self.dropout, self.norm = garan.value, garan.dropout, garan.norm

    def forward(self, features: Tensor, expressions: Tensor) -> tuple[Tensor, Tensor]:
        """As `GlobalAttentiveReasoning.forward`."""
        N, C, h, w = features.shape
        G, d = self.heads, C // self.heads
        positions = features.flatten(2)
        query = self.query(expressions).view(N, 1, G, 1, d) / math.sqrt(d)
        keys = self.collect_key, self.diffuse_key
        weights = torch.stack([key.weight for key in keys]).view(2, G, d, C)
        biases = torch.stack([cast(Tensor, key.bias) for key in keys]).view(2, G, d, 1)
        asked, offsets = (query @ weights).view(N, 2 * G, C), (query @ biases).view(N, 2 * G, 1)
        logits, diffuse = (asked @ positions + offsets).chunk(2, dim=1)  # (N, G, hw)
        collect = self.dropout(logits.softmax(dim=-1))
        collected = collect @ positions.transpose(1, 2)  # (N, G, C)
        value = (self.value.weight.view(G, d, C) @ collected[..., None]).squeeze(3)  # (N, G, d)
        value = value + cast(Tensor, self.value.bias).view(G, d) * collect.sum(dim=-1, keepdim=True)
        diffuse = self.dropout(diffuse.sigmoid())
        if self.transposed_diffusion:
            diffuse = diffuse.view(N, G, h, w).transpose(2, 3).reshape(N, G, h * w)
        diffused = (value[..., None] * diffuse[:, :, None]).view(N, C, h, w)
        reasoned = F.leaky_relu(self.norm(features + diffused), 0.1)
        return reasoned, logits.mean(dim=1).view(N, h, w)


class SplitHead(nn.Module):
    """Stands in for a `Head` that sees map, expression and position: of its first convolution the expression's part is
    a product for each tap, and the position's knows no picture."""

    forward = Head.forward

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.hidden, self.output, self.language_width = head.hidden, head.output, head.language_width

    def read(self, pyramid: Sequence[Tensor], expressions: Tensor) -> list[Tensor]:
        """As `Head.read`."""
        first, *others = cast(list[nn.Conv2d], list(self.hidden))
        width, language = pyramid[0].shape[1], self.language_width
        of_map, of_expression, of_position = first.weight.split((width, language, 2), dim=1)
        told = F.linear(expressions, of_expression.permute(2, 3, 0, 1).flatten(0, 2))
        told = told.view(len(expressions), 9, -1)
        maps = []
        for features in pyramid:
            N, _, h, w = features.shape
            inside = on_device(taps_inside, features.device, told.dtype, h, w)
            language_part = (inside.T @ told).view(N, h, w, -1).permute(0, 3, 1, 2)
            centres = on_device(cell_centres, features.device, features.dtype, h, w).permute(2, 0, 1)[None]
            position_part = F.conv2d(centres, of_position, first.bias, padding=1)
            hidden = F.relu(F.conv2d(features, of_map, padding=1) + language_part + position_part)
            for convolution in others:
                hidden = F.relu(convolution(hidden))
            maps.append(hidden)
        return maps


def rewrite_for_training(network: GIN) -> dict[str, nn.Module]:
    """Replace parts of a network, which keeps its parameters and buffers and their names; returns what was replaced."""
    former = {}
    for name, module in list(network.named_modules()):
        part = _stand_in(module, network)
        if part is not None:
            former[name] = module
            network.set_submodule(name, part)
    return former


def rewrite_if_the_same(network: GIN) -> bool:
    """Rewrite a network on the CPU, but leave it as it is if it would answer otherwise, as where somebody has changed a
    part that one of these stands in for; returns whether it was rewritten."""
    before = _answers(network)
    former = rewrite_for_training(network)
    same = all(map(_agree, before, _answers(network)))
    if not same:
        for name, module in former.items():
            network.set_submodule(name, module)
    return same


def _stand_in(module: nn.Module, network: GIN) -> nn.Module | None:
    if isinstance(module, Branch) and module.octaves < 0:
        return EarlyBranch(module)
    if isinstance(module, GlobalAttentiveReasoning):
        return AbsorbedKeys(module)
    if isinstance(module, Head) and network.config.blind == "none":
        return SplitHead(module)
    return None


@torch.no_grad()
def _answers(network: GIN) -> list[Tensor]:
    """To a made-up question about a made-up picture, in evaluation."""
    trained = [module for module in network.modules() if module.training]
    network.eval()
    size, dtype = network.config.image_size, next(network.parameters()).dtype
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)
    grounding = network(picture, torch.ones(1, 3, dtype=torch.int64), torch.tensor([3]), torch.tensor([0]))
    for module in trained:
        module.training = True
    return [grounding.score_logits, grounding.box_deltas, *grounding.attention_logits]


def _agree(one: Tensor, other: Tensor) -> bool:
    """But for rounding, which is a thousandth of what answers differ by among themselves at most."""
    spread = float((one.max() - one.min()).nan_to_num())
    return torch.allclose(one, other, rtol=0, atol=1e-3 * spread + 1e-6, equal_nan=True)

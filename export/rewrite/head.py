"""The head with what it knows beforehand taken out, and with boxes only where they are asked for."""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.anchors import cell_centres, on_device
from model.gin import GIN
from model.head import Head


class SplitConvolution(nn.Module):
    """The head's first convolution, of map, expression and position.

    The expression is the same at every position, so its part is one product per tap, which counts where the tap is
    inside the map. The position's part is a constant of the map's size.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        whole = cast(nn.Conv2d, head.hidden[0])
        assert whole.bias is not None
        weight = whole.weight.detach()
        language = head.language_width
        parts = weight.split((weight.shape[1] - language - 2, language, 2), dim=1)
        self.of_map = nn.Conv2d(parts[0].shape[1], weight.shape[0], kernel_size=3, padding=1, bias=False)
        self.of_map.weight = nn.Parameter(parts[0].contiguous())
        self.of_expression = nn.Linear(language, 9 * weight.shape[0], bias=False)
        self.of_expression.weight = nn.Parameter(parts[1].permute(0, 2, 3, 1).reshape(-1, language).contiguous())
        self.of_position = nn.Parameter(parts[2].contiguous())
        self.bias = nn.Parameter(whole.bias.detach().clone())

    def forward(self, features: Tensor, expressions: Tensor) -> Tensor:
        """features: (N, C, h, w). expressions: (N, D). Returns (N, width, h, w)."""
        N, _, h, w = features.shape
        inside = on_device(taps_inside, features.device, features.dtype, h, w)  # (9, hw)
        taps = self.of_expression(expressions).view(N, -1, 9)
        language = (taps @ inside).view(N, -1, h, w)
        centres = on_device(cell_centres, features.device, features.dtype, h, w).permute(2, 0, 1)[None]
        position = F.conv2d(centres, self.of_position, self.bias, padding=1)
        return self.of_map(features) + language + position


def taps_inside(height: int, width: int) -> Tensor:
    """1 where a tap of a 3x3 convolution lies inside the map, 0 in its padding: float64 (9, height * width)."""
    ones = F.pad(torch.ones(height, width, dtype=torch.float64), (1, 1, 1, 1))
    return torch.stack([ones[y : y + height, x : x + width].flatten() for y in range(3) for x in range(3)])


class SplitHead(nn.Module):
    """Stands in for a `Head` that sees map, expression and position."""

    forward = Head.forward

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.first = SplitConvolution(head)
        self.hidden, self.output = head.hidden[1:], head.output

    def read(self, pyramid: Sequence[Tensor], expressions: Tensor) -> list[Tensor]:
        """As `Head.read`."""
        maps = []
        for features in pyramid:
            hidden = F.relu(self.first(features, expressions))
            for convolution in self.hidden:
                hidden = F.relu(convolution(hidden))
            maps.append(hidden)
        return maps


class ScoreFirst(nn.Module):
    """Stands in for any head: scores everywhere, box deltas where they are asked for."""

    def __init__(self, head: Head, anchors_per_cell: int) -> None:
        """head: a `Head`, or what stands in for one."""
        super().__init__()
        self.head, self.anchors_per_cell = head, anchors_per_cell
        output = head.output
        assert output.bias is not None
        width = output.in_channels
        weight = output.weight.detach().view(anchors_per_cell, 5, width, 3, 3)  # four deltas, then the score
        bias = output.bias.detach().view(anchors_per_cell, 5)
        self.score = nn.Conv2d(width, anchors_per_cell, kernel_size=3, padding=1)
        self.score.weight, self.score.bias = nn.Parameter(weight[:, 4].clone()), nn.Parameter(bias[:, 4].clone())
        deltas = weight[:, :4].flatten(3).permute(0, 2, 3, 1)  # (K, width, 9, 4)
        self.deltas = nn.Parameter(deltas.reshape(anchors_per_cell, width * 9, 4).contiguous())
        self.deltas_bias = nn.Parameter(bias[:, :4].clone())

    def forward(self, pyramid: Sequence[Tensor], expressions: Tensor) -> tuple[Tensor, Tensor]:
        """As `Head.forward`, all deltas."""
        return self.head(pyramid, expressions)

    def scores(self, pyramid: Sequence[Tensor], expressions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Score logits (N, A) as `Head.forward` gives them, and the hidden maps that `deltas_at` wants. They are in the
        precision of the score's weights, whatever that of the head is."""
        maps = [hidden.to(self.score.weight.dtype) for hidden in self.head.read(pyramid, expressions)]
        logits = [self.score(hidden).permute(0, 2, 3, 1).reshape(hidden.shape[0], -1) for hidden in maps]
        return torch.cat(logits, dim=1), maps

    def deltas_at(self, maps: Sequence[Tensor], index: Tensor) -> Tensor:
        """Box deltas (N, K, 4) at anchors `index` (N, K)."""
        N, K = index.shape
        width = maps[0].shape[1]
        sizes = tuple((hidden.shape[2], hidden.shape[3]) for hidden in maps)
        padded = torch.cat([F.pad(hidden, (1, 1, 1, 1)).flatten(2) for hidden in maps], dim=2)  # (N, width, places)
        table = on_device(neighbourhoods, index.device, torch.int64, sizes)  # (positions, 9)
        places = table[index // self.anchors_per_cell].view(N, 1, K * 9).expand(-1, width, -1)
        patches = padded.gather(2, places).view(N, width, K, 9).transpose(1, 2).reshape(N * K, 1, width * 9)
        shape = (index % self.anchors_per_cell).flatten()
        deltas = (patches @ self.deltas[shape]).squeeze(1) + self.deltas_bias[shape]
        return deltas.view(N, K, 4)


def neighbourhoods(sizes: Sequence[tuple[int, int]]) -> Tensor:
    """For each position of maps of the given (height, width), one after another: where the 3x3 around it lies in the
    maps padded by one and flattened, one after another. int64 (positions, 9)."""
    tables, before = [], 0
    for height, width in sizes:
        rows = torch.arange(height)[:, None, None, None] + torch.arange(3)[:, None]
        columns = torch.arange(width)[None, :, None, None] + torch.arange(3)
        tables.append((before + rows * (width + 2) + columns).reshape(height * width, 9))
        before += (height + 2) * (width + 2)
    return torch.cat(tables)


def split_head(network: GIN) -> GIN:
    """Split the first convolution of the head, where it sees map, expression and position."""
    network = copy.deepcopy(network).eval()
    if isinstance(network.head, Head) and network.config.blind == "none":
        network.head = SplitHead(network.head)
    return network


def score_first(network: GIN) -> GIN:
    """Let the head give scores first and deltas on request."""
    network = copy.deepcopy(network).eval()
    if not isinstance(network.head, ScoreFirst):
        network.head = ScoreFirst(cast(Head, network.head), network.config.anchors_per_cell)
    return network

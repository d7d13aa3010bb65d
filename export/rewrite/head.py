"""The head with what it knows beforehand taken out of its first convolution."""

import copy
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from model.anchors import cell_centres, on_device
from model.gin import GIN
from model.head import Head
from model.taps import taps_inside


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


def split_head(network: GIN) -> GIN:
    """Split the first convolution of the head, where it sees map, expression and position."""
    network = copy.deepcopy(network).eval()
    if isinstance(network.head, Head) and network.config.blind == "none":
        network.head = SplitHead(network.head)
    return network

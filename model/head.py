"""The head: scores and box deltas of the anchors at every position of every pyramid level."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.anchors import cell_centres, on_device

INITIAL_SCORE = -4.0  # logit: nearly every anchor is background at the start


class Head(nn.Module):
    """Convolutions shared by all levels over the map, the expression vector and the position.

    blind: see `ModelConfig`; blind to one of the first two, it does without the position as well, as ZSGNet does.
    """

    def __init__(
        self, pyramid_width: int, language_width: int, width: int, layers: int, anchors_per_cell: int, blind: str
    ) -> None:
        super().__init__()
        self.language_width = language_width
        self.sees_map = blind in ("none", "language")
        self.sees_expression = blind in ("none", "image")
        self.sees_position = blind in ("none", "both")
        seen = pyramid_width * self.sees_map + language_width * self.sees_expression + 2 * self.sees_position
        channels = [seen] + [width] * layers
        self.hidden = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, padding=1) for before, after in pairwise(channels)
        )
        self.output = nn.Conv2d(width, anchors_per_cell * 5, kernel_size=3, padding=1)
        bias = torch.zeros(anchors_per_cell, 5)  # four deltas, then the score
        bias[:, 4] = INITIAL_SCORE
        self.output.bias = nn.Parameter(bias.flatten())

    def forward(self, pyramid: Sequence[Tensor], expressions: Tensor) -> tuple[Tensor, Tensor]:
        """pyramid: (N, C, h, w) per level. expressions: (N, D).

        Returns score logits (N, A) and box deltas (N, A, 4) as centre y, x, height, width, in the order of
        `model.anchors.make_anchors`.
        """
        outputs = [self.output(hidden) for hidden in self.read(pyramid, expressions)]
        flat = [output.permute(0, 2, 3, 1).reshape(output.shape[0], -1, 5) for output in outputs]
        joined = torch.cat(flat, dim=1)  # (N, A, 5)
        return joined[..., 4], joined[..., :4]

    def read(self, pyramid: Sequence[Tensor], expressions: Tensor) -> list[Tensor]:
        """The last hidden map (N, width, h, w) of each level."""
        return [self._read_level(features, expressions) for features in pyramid]

    def _read_level(self, features: Tensor, expressions: Tensor) -> Tensor:
        N, _, h, w = features.shape
        seen = [features] if self.sees_map else []
        if self.sees_expression:
            seen.append(expressions[:, :, None, None].expand(-1, -1, h, w))
        if self.sees_position:
            position = on_device(cell_centres, features.device, features.dtype, h, w)
            seen.append(position.permute(2, 0, 1).expand(N, -1, -1, -1))
        hidden = torch.cat(seen, dim=1)
        for convolution in self.hidden:
            hidden = F.relu(convolution(hidden))
        return hidden

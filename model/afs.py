"""Adaptive Feature Selection: the three backbone maps brought to one level and mixed as the expression asks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Branch(nn.Module):
    """One backbone map brought to another level's size and width.

    octaves: how many halvings lie between the map and the level; positive brings it down, negative up.
    """

    def __init__(self, in_channels: int, branch_width: int, map_width: int, octaves: int) -> None:
        super().__init__()
        self.octaves = octaves
        self.conv1 = nn.Conv2d(in_channels, branch_width, kernel_size=3, padding=1)
        self.norm1 = nn.BatchNorm2d(branch_width)
        self.conv2 = nn.Conv2d(branch_width, map_width, kernel_size=1)
        self.norm2 = nn.BatchNorm2d(map_width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, map_width, h / 2^octaves, w / 2^octaves)."""
        if self.octaves > 0:
            features = F.avg_pool2d(features, 2**self.octaves)
        elif self.octaves < 0:
            features = F.interpolate(features, scale_factor=2**-self.octaves, mode="bilinear", align_corners=True)
        features = F.leaky_relu(self.norm1(self.conv1(features)), 0.1)
        return F.leaky_relu(self.norm2(self.conv2(features)), 0.1)


class AdaptiveFeatureSelection(nn.Module):
    """Branches of all backbone maps at one level, summed with weights that the expression chooses."""

    def __init__(
        self, channels: Sequence[int], level: int, branch_width: int, map_width: int, language_width: int
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            Branch(count, branch_width, map_width, octaves=level - index) for index, count in enumerate(channels)
        )
        self.weights = nn.Linear(language_width, len(channels))

    def bring(self, maps: Sequence[Tensor]) -> Tensor:
        """The part that knows no language: the backbone maps, finest first, at this level: (B, 3, C, h, w)."""
        return torch.stack([branch(features) for branch, features in zip(self.branches, maps, strict=True)], dim=1)

    def select(self, brought: Tensor, expressions: Tensor, image_index: Tensor) -> Tensor:
        """Mix what `bring` returned for each expression.

        expressions: (N, D). image_index: (N,) int64, the image that each expression is about. Returns (N, C, h, w).
        """
        weights = self.weights(expressions).softmax(dim=-1)  # (N, K)
        B, K, C, h, w = brought.shape
        # one matrix product, with zeros for the other images: a copy of each expression's maps would cost far more
        own = image_index[:, None] == torch.arange(B, device=brought.device)  # (N, B)
        mixing = (own[:, :, None] * weights[:, None]).reshape(-1, B * K)
        return (mixing @ brought.reshape(B * K, C * h * w)).reshape(-1, C, h, w)

"""Torchvision classification networks as a source of three maps."""

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from model.config import NODES


class Backbone(nn.Module):
    """C3, C4 and C5 of a torchvision network; `channels` says how many channels each has."""

    def __init__(self, name: str) -> None:
        super().__init__()
        whole = torchvision.models.get_model(name, weights=None)
        self.body = create_feature_extractor(whole, {node: node for node in NODES[name]})
        self.channels = self._read_channels()

    @torch.no_grad()
    def _read_channels(self) -> tuple[int, ...]:
        self.body.eval()
        maps = self.body(torch.zeros(1, 3, 64, 64)).values()
        self.body.train()
        return tuple(features.shape[1] for features in maps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (B, 3, H, W) float RGB in 0..1. Returns (B, C, H/s, W/s) for s = 8, 16, 32."""
        return list(self.body(images).values())

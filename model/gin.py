"""GIN, the Real-time Global Inference Network (Zhou et al., 2019): an image and an expression to scored boxes."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from model.afs import AdaptiveFeatureSelection
from model.anchors import make_anchors, on_device
from model.backbone import Backbone
from model.config import SSD, ModelConfig
from model.expression import ExpressionEncoder
from model.fpn import FeaturePyramid
from model.garan import GlobalAttentiveReasoning
from model.head import Head
from model.ssd_vgg import SSDVGG16


class Grounding(NamedTuple):
    """What the network says about N expressions, before a box is chosen.

    score_logits: (N, A). box_deltas: (N, A, 4) as centre y, x, height, width. attention_logits: three (N, h, w),
    strides 8, 16, 32; none without GARAN. anchors: (A, 4) yxhw, float64, levels finest first, not to be
    changed: other answers share them.
    """

    score_logits: Tensor
    box_deltas: Tensor
    attention_logits: tuple[Tensor, ...]
    anchors: Tensor


class GIN(nn.Module):
    """The whole network, or the variant of it that the configuration asks for.

    Images and expressions are encoded apart; `ground` brings them together.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = _make_backbone(config)
        self.expression = ExpressionEncoder(vocabulary_size, config.word_width, config.language_width)
        if isinstance(self.backbone, Backbone):
            self._make_neck(self.backbone.channels)
        self.head: nn.Module = Head(
            config.pyramid_width,
            config.language_width,
            config.head_width,
            config.head_layers,
            config.anchors_per_cell,
            config.blind,
        )

    def _make_neck(self, channels: Sequence[int]) -> None:
        """What stands between the backbone's three maps and the head. channels: of these maps."""
        config = self.config
        if config.afs:
            self.afs = nn.ModuleList(
                AdaptiveFeatureSelection(channels, level, config.branch_width, config.map_width, config.language_width)
                for level in range(len(channels))
            )
        elif config.garan:
            self.project = nn.ModuleList(nn.Conv2d(count, config.map_width, kernel_size=1) for count in channels)
        if config.afs or config.garan:
            channels = [config.map_width] * len(channels)
        if config.garan:
            self.garan = nn.ModuleList(
                GlobalAttentiveReasoning(
                    config.map_width,
                    config.language_width,
                    config.attention_heads,
                    config.dropout,
                    config.transposed_diffusion,
                )
                for _ in channels
            )
        self.fpn = FeaturePyramid(channels, config.pyramid_width, config.pyramid_levels)

    @property
    def _afs(self) -> list[AdaptiveFeatureSelection]:
        return cast(list[AdaptiveFeatureSelection], list(self.afs))

    def encode_image(self, images: Tensor) -> list[Tensor]:
        """images: (B, 3, H, W) float RGB in 0..1, of a size that `ModelConfig` admits.

        Knows no language, so one result serves every expression about the image. Returns per level (B, 3, C, h, w) for
        AFS; without it (B, C, h, w): for GARAN, or without both the pyramid's finished maps.
        """
        maps = self.backbone(images)
        if self.config.afs:
            return [afs.bring(maps) for afs in self._afs]
        if self.config.garan:
            return [project(features) for project, features in zip(self.project, maps, strict=True)]
        return self.fpn(maps) if isinstance(self.backbone, Backbone) else maps

    def encode_expression(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids: (N, T) int64. lengths: (N,) int64. Returns (N, D)."""
        return self.expression(ids, lengths)

    def ground(self, features: list[Tensor], expressions: Tensor, image_index: Tensor) -> Grounding:
        """features: from `encode_image`. expressions: (N, D). image_index: (N,) int64 in 0..B-1."""
        pyramid, expressions, attention_logits = self.reason(features, expressions, image_index)
        score_logits, box_deltas = self.head(pyramid, expressions)
        return Grounding(score_logits, box_deltas, attention_logits, self.anchors(pyramid))

    def reason(
        self, features: list[Tensor], expressions: Tensor, image_index: Tensor
    ) -> tuple[list[Tensor], Tensor, tuple[Tensor, ...]]:
        """The part of `ground` before the head: the pyramid's maps, what the head is told of the expressions, and the
        attention logits."""
        config = self.config
        if config.blind in ("language", "both"):
            expressions = torch.zeros_like(expressions)
        if config.afs:
            afs_and_features = zip(self._afs, features, strict=True)
            maps = [afs.select(level, expressions, image_index) for afs, level in afs_and_features]
        else:
            maps = [level[image_index] for level in features]
        attention_logits: tuple[Tensor, ...] = ()
        if config.garan:
            reasoned = [garan(level, expressions) for garan, level in zip(self.garan, maps, strict=True)]
            maps, attention_logits = [level for level, _ in reasoned], tuple(logits for _, logits in reasoned)
        pyramid = self.fpn(maps) if config.afs or config.garan else maps
        return pyramid, expressions, attention_logits

    def anchors(self, pyramid: list[Tensor]) -> Tensor:
        """The anchors (A, 4) yxhw of the pyramid's maps, float64, on their device."""
        sizes = tuple((level.shape[2], level.shape[3]) for level in pyramid)
        boxes = (sizes, self.config.anchor_scales, self.config.anchor_ratios)
        return on_device(make_anchors, pyramid[0].device, torch.float64, *boxes)

    def forward(self, images: Tensor, ids: Tensor, lengths: Tensor, image_index: Tensor | None = None) -> Grounding:
        """Ground N expressions about B images; without `image_index`, expression i is about image i."""
        if image_index is None:
            image_index = torch.arange(len(ids), device=ids.device)
        return self.ground(self.encode_image(images), self.encode_expression(ids, lengths), image_index)


def _make_backbone(config: ModelConfig) -> Backbone | SSDVGG16:
    if config.backbone == SSD:
        return SSDVGG16(config.pyramid_width, config.pyramid_levels)
    return Backbone(config.backbone)

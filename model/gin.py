"""GIN, the Real-time Global Inference Network (Zhou et al., 2019): an image and an expression to scored boxes."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from model.afs import AdaptiveFeatureSelection
from model.anchors import make_anchors
from model.backbone import Backbone
from model.config import STRIDES, ModelConfig
from model.expression import ExpressionEncoder
from model.fpn import FeaturePyramid
from model.garan import GlobalAttentiveReasoning
from model.head import Head


class Grounding(NamedTuple):
    """What the network says about N expressions, before a box is chosen.

    score_logits: (N, A). box_deltas: (N, A, 4) as centre y, x, height, width. attention_logits: three (N, h, w),
    strides 8, 16, 32. anchors: (A, 4) yxhw, float64, levels finest first.
    """

    score_logits: Tensor
    box_deltas: Tensor
    attention_logits: tuple[Tensor, ...]
    anchors: Tensor


class GIN(nn.Module):
    """The whole network. Images and expressions are encoded apart; `ground` brings them together."""

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        levels = range(len(STRIDES))
        self.backbone = Backbone(config.backbone)
        self.expression = ExpressionEncoder(vocabulary_size, config.word_width, config.language_width)
        self.afs = nn.ModuleList(
            AdaptiveFeatureSelection(
                self.backbone.channels, level, config.branch_width, config.map_width, config.language_width
            )
            for level in levels
        )
        self.garan = nn.ModuleList(
            GlobalAttentiveReasoning(
                config.map_width,
                config.language_width,
                config.attention_heads,
                config.dropout,
                config.transposed_diffusion,
            )
            for _ in levels
        )
        self.fpn = FeaturePyramid(config.map_width, config.pyramid_width, config.pyramid_levels)
        self.head = Head(
            config.pyramid_width, config.language_width, config.head_width, config.head_layers, config.anchors_per_cell
        )

    @property
    def _afs(self) -> list[AdaptiveFeatureSelection]:
        return cast(list[AdaptiveFeatureSelection], list(self.afs))

    def encode_image(self, images: Tensor) -> list[Tensor]:
        """images: (B, 3, H, W) float RGB in 0..1, H and W multiples of 32. Returns (B, 3, C, h, w) per level.

        Knows no language, so one result serves every expression about the image.
        """
        maps = self.backbone(images)
        return [afs.bring(maps) for afs in self._afs]

    def encode_expression(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids: (N, T) int64. lengths: (N,) int64. Returns (N, D)."""
        return self.expression(ids, lengths)

    def ground(self, features: list[Tensor], expressions: Tensor, image_index: Tensor) -> Grounding:
        """features: from `encode_image`. expressions: (N, D). image_index: (N,) int64 in 0..B-1."""
        selected = [afs.select(level, expressions, image_index) for afs, level in zip(self._afs, features, strict=True)]
        reasoned = [garan(level, expressions) for garan, level in zip(self.garan, selected, strict=True)]
        pyramid = self.fpn([level for level, _ in reasoned])
        score_logits, box_deltas = self.head(pyramid, expressions)
        sizes = [(level.shape[2], level.shape[3]) for level in pyramid]
        anchors = make_anchors(sizes, self.config.anchor_scales, self.config.anchor_ratios)
        return Grounding(
            score_logits, box_deltas, tuple(logits for _, logits in reasoned), anchors.to(score_logits.device)
        )

    def forward(self, images: Tensor, ids: Tensor, lengths: Tensor, image_index: Tensor | None = None) -> Grounding:
        """Ground N expressions about B images; without `image_index`, expression i is about image i."""
        if image_index is None:
            image_index = torch.arange(len(ids), device=ids.device)
        return self.ground(self.encode_image(images), self.encode_expression(ids, lengths), image_index)

"""The network as it is served: prepared pixels and word ids in, boxes in pixels out. One contract for all files."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.rewrite.head import ScoreFirst
from model.answer import pixels_to_images
from model.boxes import clip_xyxy, decode_boxes, yxhw_to_yxyx, yxyx_to_xyxy
from model.checkpoint import Checkpoint
from model.gin import GIN

INPUTS = ("images", "expression_ids", "lengths", "image_index", "image_sizes")
OUTPUTS = ("boxes", "scores", "attention", "anchors")
DYNAMIC_AXES = {  # the other axes are constants of the graph
    "images": {0: "B"},
    "expression_ids": {0: "N", 1: "T"},
    "lengths": {0: "N"},
    "image_index": {0: "N"},
    "image_sizes": {0: "B"},
}


class ServedNetwork(nn.Module):
    """B images and N expressions about them to one box per expression.

    Raises ValueError for a network without GARAN, which has no attention to answer with.
    """

    def __init__(self, network: GIN) -> None:
        if not network.config.garan:
            raise ValueError("garan is false in this checkpoint; what is served answers GARAN's attention too")
        super().__init__()
        self.network = network.eval()

    def forward(
        self, images: Tensor, expression_ids: Tensor, lengths: Tensor, image_index: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """images: uint8 (B, S, S, 3) RGB. expression_ids: int64 (N, T), padded at the end. lengths: int64 (N,).
        image_index: int64 (N,). image_sizes: int64 (B, 2), height and width of the original images.

        Returns boxes float32 (N, 4), x1, y1, x2, y2 in pixels of the original image, clipped to it; scores float32
        (N,) in 0..1; attention float32 (N, S/8, S/8) in 0..1; anchors int64 (N,), which anchor won.
        """
        network, sizes = self.network, image_sizes[image_index]
        features = network.encode_image(pixels_to_images(images))
        expressions = network.encode_expression(expression_ids, lengths)
        pyramid, expressions, attention_logits = network.reason(features, expressions, image_index)
        if isinstance(network.head, ScoreFirst):
            logits, maps = network.head.scores(pyramid, expressions)
            logits, best = logits.max(dim=1)
            deltas = network.head.deltas_at(maps, best[:, None]).squeeze(1)
        else:
            all_logits, all_deltas = network.head(pyramid, expressions)
            logits, best = all_logits.max(dim=1)
            deltas = all_deltas.gather(1, best[:, None, None].expand(-1, 1, 4)).squeeze(1)
        boxes = yxhw_to_yxyx(decode_boxes(deltas, network.anchors(pyramid).float()[best]))
        boxes = clip_xyxy(yxyx_to_xyxy(boxes, sizes.to(boxes.dtype)), sizes)
        return boxes, logits.sigmoid(), attention_logits[0].sigmoid(), best


@dataclass(frozen=True)
class Question:
    """Inputs of one call, in the order of `INPUTS`."""

    images: Tensor
    expression_ids: Tensor
    lengths: Tensor
    image_index: Tensor
    image_sizes: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs as positional arguments."""
        return self.images, self.expression_ids, self.lengths, self.image_index, self.image_sizes


def make_question(checkpoint: Checkpoint, images: int, lengths: Sequence[int], seed: int) -> Question:
    """A made-up question: smooth random pictures and random words, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    size = checkpoint.config.image_size
    coarse = torch.rand(images, 3, 8, 8, generator=random)
    pictures = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1) * 255
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(1, len(checkpoint.vocabulary), (length,), generator=random)
    return Question(
        pictures.to(torch.uint8).permute(0, 2, 3, 1).contiguous(),
        ids,
        torch.tensor(lengths),
        torch.randint(images, (len(lengths),), generator=random),
        torch.randint(1, 4_000, (images, 2), generator=random),
    )

"""The network as it is served: prepared pixels and word ids in, boxes in pixels out. One contract for all files.

Three graphs: `gin_image` knows no language, so one result serves every expression about its images; `gin_expression`
goes on from there; `gin` is both, for single questions, and answers without the candidates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.rewrite.winner import ScoreFirst
from model.answer import pixels_to_images
from model.boxes import clip_xyxy, decode_boxes, yxhw_to_yxyx, yxyx_to_xyxy
from model.gin import GIN

GRAPHS = ("gin_image", "gin_expression", "gin")
FEATURES = ("features_8", "features_16", "features_32")  # by stride, finest first
ASKED = ("expression_ids", "lengths", "image_index", "image_sizes")
INPUTS = ("images", *ASKED)  # of both parts together
ANSWERS = ("boxes", "scores", "attention", "anchors")
CANDIDATES = ("candidate_boxes", "candidate_scores")
CANDIDATE_COUNT = 128  # anchors with the best scores; many of them are about one and the same thing
FREE_AXES: dict[str, dict[int, str]] = {  # the other axes are constants of the graph
    "images": {0: "B"},
    **{name: {0: "B"} for name in FEATURES},
    "expression_ids": {0: "N", 1: "T"},
    "lengths": {0: "N"},
    "image_index": {0: "N"},
    "image_sizes": {0: "B"},
    "boxes": {0: "N"},
    "scores": {0: "N"},
    "attention": {0: "N"},
    "anchors": {0: "N"},
    "candidate_boxes": {0: "N"},
    "candidate_scores": {0: "N"},
}


class ImagePart(nn.Module):
    """B images to their features."""

    def __init__(self, network: GIN) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: uint8 (B, S, S, 3) RGB. Returns float32 (B, 3, C, h, w) per stride, or (B, C, h, w) without AFS."""
        return tuple(features.float() for features in self.encode(images))

    def encode(self, images: Tensor) -> list[Tensor]:
        """The same in the network's own precision."""
        return self.network.encode_image(pixels_to_images(images).to(precision_of(self.network)))


class ExpressionPart(nn.Module):
    """Features of B images and N expressions about them to one box per expression, and the best candidates for it."""

    def __init__(self, network: GIN, candidates: int = CANDIDATE_COUNT) -> None:
        super().__init__()
        self.network, self.candidates = network, candidates

    def forward(
        self,
        features_8: Tensor,
        features_16: Tensor,
        features_32: Tensor,
        expression_ids: Tensor,
        lengths: Tensor,
        image_index: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, ...]:
        """features: as `ImagePart` gives them. expression_ids: int64 (N, T), padded at the end. lengths: int64 (N,).
        image_index: int64 (N,). image_sizes: int64 (B, 2), height and width of the original images.

        Returns boxes float32 (N, 4), x1, y1, x2, y2 in pixels of the original image, clipped to it; scores float32
        (N,) in 0..1; attention float32 (N, S/8, S/8) in 0..1; anchors int64 (N,), which anchor won; and boxes (N, K, 4)
        and scores (N, K) of the K best anchors, best first.
        """
        dtype = precision_of(self.network)
        features = [level.to(dtype) for level in (features_8, features_16, features_32)]
        expressions = self.network.encode_expression(expression_ids, lengths).to(dtype)
        return self.answer(features, expressions, image_index, image_sizes)

    def answer(
        self, features: list[Tensor], expressions: Tensor, image_index: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, ...]:
        """The same from encoded expressions (N, D). features: from `GIN.encode_image`."""
        pyramid, expressions, attention_logits = self.network.reason(features, expressions, image_index)
        return self.read(pyramid, expressions, attention_logits[0], image_index, image_sizes)

    def read(
        self,
        pyramid: list[Tensor],
        expressions: Tensor,
        attention_logits: Tensor,
        image_index: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, ...]:
        """The same from what `GIN.reason` gives. attention_logits: of the finest level."""
        network = self.network
        anchors, sizes = network.anchors(pyramid).float(), image_sizes[image_index]
        logits, deltas_at = _run_head(network.head, pyramid, expressions)

        def boxes_at(index: Tensor) -> Tensor:
            """Boxes (N, K, 4) at anchors (N, K)."""
            boxes = yxhw_to_yxyx(decode_boxes(deltas_at(index), anchors[index]))
            return clip_xyxy(yxyx_to_xyxy(boxes, sizes[:, None].to(boxes.dtype)), sizes[:, None])

        if self.candidates == 1:  # the best one needs no sorting
            logits, index = logits.max(dim=1, keepdim=True)
        else:
            logits, index = logits.topk(min(self.candidates, logits.shape[1]), dim=1)  # best first
        boxes, scores = boxes_at(index), logits.sigmoid()
        attention = attention_logits.float().sigmoid()
        return boxes[:, 0], scores[:, 0], attention, index[:, 0], boxes, scores


def _run_head(head: nn.Module, pyramid: list[Tensor], expressions: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Score logits (N, A), and what gives the box deltas (N, K, 4) at anchors (N, K)."""
    if isinstance(head, ScoreFirst):
        sizes = [(level.shape[2], level.shape[3]) for level in pyramid]
        logits, cells = head.scores(pyramid, expressions)
        return logits, lambda index: head.deltas_at(cells, sizes, index)
    logits, deltas = head(pyramid, expressions)
    return logits, lambda index: deltas.gather(1, index[:, :, None].expand(-1, -1, 4))


class Whole(nn.Module):
    """B images and N expressions about them to one box per expression."""

    def __init__(self, network: GIN) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Tensor, expression_ids: Tensor, lengths: Tensor, image_index: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, ...]:
        """See the two parts."""
        features = ImagePart(self.network).encode(images)
        expressions = self.network.encode_expression(expression_ids, lengths).to(precision_of(self.network))
        part = ExpressionPart(self.network, candidates=1)
        answers = part.answer(features, expressions, image_index, image_sizes)
        return answers[: len(ANSWERS)]


@dataclass(frozen=True)
class Graph:
    """A graph to export. inputs, outputs: names, in order. The axes in `FREE_AXES` are free."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run it. tensors: the inputs by name; others are left alone. Returns the outputs by name."""
        with torch.no_grad():  # inference tensors could not be exported with
            answers = self.module(*(tensors[name] for name in self.inputs))
        return dict(zip(self.outputs, answers, strict=True))


def make_graphs(network: GIN) -> dict[str, Graph]:
    """The three graphs of a network, which is put into evaluation mode.

    Raises ValueError for a network without GARAN, which has no attention to answer with.
    """
    if not network.config.garan:
        raise ValueError("garan is false in this checkpoint; what is served answers GARAN's attention too")
    return {
        "gin_image": Graph(ImagePart(network).eval(), ("images",), FEATURES),
        "gin_expression": Graph(ExpressionPart(network).eval(), (*FEATURES, *ASKED), (*ANSWERS, *CANDIDATES)),
        "gin": Graph(Whole(network).eval(), INPUTS, ANSWERS),
    }


def precision_of(network: GIN) -> torch.dtype:
    """What most of the network computes in."""
    return next(network.backbone.parameters()).dtype

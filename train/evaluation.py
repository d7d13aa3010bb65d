"""Answers to annotated expressions, gathered from all ranks, and the scores that sum them up."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.answer import answer, decode_at, pixels_to_images
from model.boxes import box_iou, xyxy_to_yxyx, yxhw_to_yxyx
from train.data.dataset import Batch


class Answers(NamedTuple):
    """What the network said about N rows, in the rows' order, on the CPU.

    rows, words: (N,) number of the row and of its expression's words. boxes: (N, 4) chosen, xyxy in pixels.
    scores: (N,). ious: (N,) of the chosen box with the true one. reachable: (N,) the same of the box at the anchor
    that matches the true one best, which no choice of anchor can beat by much.
    """

    rows: Tensor
    words: Tensor
    boxes: Tensor
    scores: Tensor
    ious: Tensor
    reachable: Tensor

    def checked(self) -> "Answers":
        """The answers themselves. Raises ValueError where scores are no numbers, as of a network that diverged."""
        wrong = int(self.scores.isnan().sum())
        if wrong:
            raise ValueError(f"{wrong} of {len(self.scores)} scores are not a number: the network's weights are broken")
        return self


@dataclass(frozen=True)
class Scores:
    """accuracy, accuracy_25, accuracy_75: share of rows whose chosen box has IoU of at least 0.5, 0.25, 0.75 with the
    true one. mean_iou: over all rows. reachable: share whose box at the best-matching anchor has IoU of at least 0.5.
    rows: how many there are; those that could not be asked count as missed."""

    accuracy: float
    accuracy_25: float
    accuracy_75: float
    mean_iou: float
    reachable: float
    rows: int

    @classmethod
    def of(cls, answers: Answers, unusable: int = 0) -> "Scores":
        """Sum up. unusable: rows that could not be asked. Without any row every score is NaN."""
        count = len(answers.rows) + unusable
        ious = answers.ious.double()

        def share(values: Tensor) -> float:
            return float(values.sum()) / count if count else math.nan

        return cls(
            accuracy=share(ious >= 0.5),
            accuracy_25=share(ious >= 0.25),
            accuracy_75=share(ious >= 0.75),
            mean_iou=share(ious),
            reachable=share(answers.reachable >= 0.5),
            rows=count,
        )


def breakdown(answers: Answers, groups: Mapping[int, str]) -> dict[str, Scores]:
    """Scores of each group of rows. groups: row number to its group's name; rows without one are left out."""
    members: dict[str, list[int]] = {}
    for index, row in enumerate(answers.rows.tolist()):
        if row in groups:
            members.setdefault(groups[row], []).append(index)
    return {name: Scores.of(Answers(*(part[chosen] for part in answers))) for name, chosen in members.items()}


@torch.inference_mode()
def evaluate(network: nn.Module, loader: Iterable[Batch], device: torch.device) -> Answers:
    """Answer every batch of every rank; each rank is to be given its own share, without repeats."""
    network.eval()
    parts = [_answer(network, batch.to(device)) for batch in loader]
    mine = [torch.cat(columns).cpu() for columns in zip(*parts, strict=True)] if parts else _nothing()
    gathered = [_gather(column, device) for column in mine]
    order = gathered[0].argsort()
    return Answers(*(column[order] for column in gathered))


def _answer(network: nn.Module, batch: Batch) -> Answers:
    grounding = network(pixels_to_images(batch.pixels), batch.ids, batch.lengths, batch.image_index)
    true = xyxy_to_yxyx(batch.boxes, batch.image_sizes.float())
    best_anchor = box_iou(true[:, None], yxhw_to_yxyx(grounding.anchors)[None]).argmax(dim=1)
    chosen = answer(grounding, batch.image_sizes)
    reachable = decode_at(grounding, best_anchor, batch.image_sizes)
    return Answers(
        batch.rows,
        batch.lengths,
        chosen.boxes,
        chosen.scores,
        box_iou(chosen.boxes, batch.boxes),
        box_iou(reachable, batch.boxes),
    )


def _nothing() -> list[Tensor]:
    whole, real = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    return [whole, whole, torch.zeros(0, 4), real, real, real]


def _gather(column: Tensor, device: torch.device) -> Tensor:
    """The column of all ranks, one after another; ranks may hold different numbers of rows."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return column
    ranks = dist.get_world_size()
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(ranks)]
    dist.all_gather(counts, torch.tensor([len(column)], device=device))
    longest = max(int(count) for count in counts)
    padded = torch.zeros((longest, *column.shape[1:]), dtype=column.dtype, device=device)
    padded[: len(column)] = column.to(device)
    pieces = [torch.zeros_like(padded) for _ in range(ranks)]
    dist.all_gather(pieces, padded)
    return torch.cat([piece[: int(count)] for piece, count in zip(pieces, counts, strict=True)]).cpu()

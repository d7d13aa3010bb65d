"""One epoch of training and one pass of evaluation. Knows tensors, not files."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from model.answer import answer, decode_at, pixels_to_images
from model.boxes import box_iou, xyxy_to_yxyx, yxhw_to_yxyx
from model.loss import LossConfig, Losses, grounding_loss
from model.targets import attention_targets
from train.data.dataset import Batch

RIGHT_IOU = 0.5  # a box that overlaps the true one this much is right


class Diverged(RuntimeError):
    """The loss is no longer a number; the message holds its parts."""


@dataclass(frozen=True)
class Scores:
    """accuracy: share of expressions whose chosen box is right. reachable: share whose box at the best-matching
    anchor is right, which no choice of anchor can beat by much. rows: how many expressions were asked."""

    accuracy: float
    reachable: float
    rows: int


def train_one_epoch(
    network: nn.Module,
    loader: Iterable[Batch],
    optimizer: Optimizer,
    schedule: LRScheduler | None,
    loss_config: LossConfig,
    device: torch.device,
    precision: str,
    clip_norm: float,
    progress: Callable[[Losses], None],
) -> dict[str, float]:
    """Train on every batch once; `schedule` steps with each. Returns mean losses. Raises Diverged."""
    network.train()
    sums = torch.zeros(len(Losses._fields), device=device)
    steps = 0
    for batch in loader:
        batch = batch.to(device)
        losses = _losses(network, batch, loss_config, precision)
        if not torch.isfinite(losses.total):
            parts = ", ".join(f"{name} {float(value):g}" for name, value in losses._asdict().items())
            raise Diverged(f"the loss is not finite after {steps} steps of this epoch: {parts}")
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        sums += torch.stack([value.detach() for value in losses])
        steps += 1
        progress(losses)
    means = _sum_over_ranks(torch.cat((sums, sums.new_tensor([float(steps)]))))
    return {name: float(means[i] / means[-1]) for i, name in enumerate(Losses._fields)}


@torch.inference_mode()
def evaluate(network: nn.Module, loader: Iterable[Batch], device: torch.device) -> Scores:
    """Accuracy over every batch of every rank; each rank is to be given its own share, without repeats."""
    network.eval()
    counts = torch.zeros(3, device=device, dtype=torch.float64)  # right, reachable, asked
    for batch in loader:
        batch = batch.to(device)
        grounding = network(pixels_to_images(batch.pixels), batch.ids, batch.lengths, batch.image_index)
        true = xyxy_to_yxyx(batch.boxes, batch.image_sizes.float())
        best_anchor = box_iou(true[:, None], yxhw_to_yxyx(grounding.anchors)[None]).argmax(dim=1)
        chosen = answer(grounding, batch.image_sizes).boxes
        reachable = decode_at(grounding, best_anchor, batch.image_sizes)
        counts[0] += (box_iou(chosen, batch.boxes) >= RIGHT_IOU).sum()
        counts[1] += (box_iou(reachable, batch.boxes) >= RIGHT_IOU).sum()
        counts[2] += len(batch.boxes)
    right, reached, asked = _sum_over_ranks(counts).tolist()
    return Scores(right / asked, reached / asked, int(asked))


def _losses(network: nn.Module, batch: Batch, loss_config: LossConfig, precision: str) -> Losses:
    with torch.autocast(batch.pixels.device.type, torch.bfloat16, enabled=precision == "bf16"):
        grounding = network(pixels_to_images(batch.pixels), batch.ids, batch.lengths, batch.image_index)
    true = xyxy_to_yxyx(batch.boxes, batch.image_sizes.float())
    targets = attention_targets(true, image_size=batch.pixels.shape[1])
    return grounding_loss(grounding, true, targets, loss_config)


def _sum_over_ranks(values: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(values)
    return values

"""The authors' way of taking a training step, built from this project's modules, for comparison.

As in their code: 32-bit, eager, images as 32-bit floats and attention targets from the host, anchors as boxes compared
over the whole batch, masks made on the CPU, Python asking the device for numbers in the middle of the loss, accuracy
after every step, an optimizer that goes from tensor to tensor.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from model.answer import answer, decode_at
from model.boxes import box_iou, encode_boxes, xyxy_to_yxyx, yxhw_to_yxyx, yxyx_to_yxhw
from model.gin import GIN, Grounding
from model.targets import attention_targets
from train.data.dataset import Batch


class OriginalStep:
    """Takes steps in the authors' formulation."""

    def __init__(self, network: GIN, device: torch.device) -> None:
        self.network, self.device = network.train(), device
        self.optimizer = Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99), foreach=False)
        self._smooth: dict[str, Tensor] = {}

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """What their loader hands over, on the host."""
        true = xyxy_to_yxyx(batch.boxes, batch.image_sizes.float())
        targets = attention_targets(true, image_size=batch.pixels.shape[1])
        prepared = {
            "images": batch.pixels.permute(0, 3, 1, 2).contiguous().float() / 255,
            "ids": batch.ids,
            "lengths": batch.lengths.float(),
            "true": true,
            "sizes": batch.image_sizes.float(),
        }
        return prepared | {f"target{level}": target for level, target in enumerate(targets)}

    def __call__(self, prepared: dict[str, Tensor]) -> None:
        """One step."""
        inputs = {name: tensor.to(self.device) for name, tensor in prepared.items()}
        self.optimizer.zero_grad()
        longest = int(inputs["lengths"].max().item())
        grounding = self.network(inputs["images"], inputs["ids"][:, :longest], inputs["lengths"].long())
        losses = self._losses(grounding, inputs)
        loss = losses["loss"].mean()
        loss.backward()
        self.optimizer.step()
        losses |= self._metrics(grounding, inputs)
        for name, value in losses.items():
            self._smooth[name] = 0.9 * self._smooth.get(name, value.detach()) + 0.1 * value.detach()
        f"{loss: .4f} {float(self._smooth['loss']): .4f} {float(self._smooth['accuracy']): .4f}"  # their status line

    def _losses(self, grounding: Grounding, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        levels = [F.binary_cross_entropy_with_logits(m, inputs[f"target{i}"]) for i, m in enumerate(grounding[2])]
        attention = sum(levels[1:], levels[0]) / 3
        anchors = grounding.anchors.float()
        iou = self._iou(inputs["true"], anchors)
        matches = torch.full_like(iou, -2).long()
        matches[iou < 0.1] = -1
        matches[iou > 0.6] = 1
        best = self._iou(inputs["true"], anchors).max(1)[1]
        mask = (torch.eye(len(anchors))[best.cpu()] > 0).to(self.device) | (matches >= 0)
        truth = encode_boxes(yxyx_to_yxhw(inputs["true"])[:, None], anchors[None])
        box = F.smooth_l1_loss(grounding.box_deltas, truth, reduction="none").sum(dim=2) * mask.float()
        box = (box.sum(dim=1) / mask.sum(dim=-1).float()).mean()
        if box.cpu() == torch.tensor([float("inf")]):
            raise RuntimeError("an infinite loss")
        chance = torch.sigmoid(grounding.score_logits)
        wanted = mask.float()
        weights = wanted * (1 - chance) + (1 - wanted) * chance
        weights = (weights.pow(2) * ((1 - wanted) * 0.25 + wanted * 0.75)).detach()
        classification = F.binary_cross_entropy_with_logits(
            grounding.score_logits, wanted, weight=weights, reduction="none"
        )
        classification = classification.sum() / mask.sum()
        if torch.isnan(box) or torch.isnan(classification):
            raise RuntimeError("a loss that is not a number")
        return {"loss": classification + box + attention, "classification": classification, "box": box}

    @torch.no_grad()
    def _metrics(self, grounding: Grounding, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        best = self._iou(inputs["true"], grounding.anchors.float()).max(1)[1]
        pixels = torch.full_like(inputs["sizes"], 2.0)
        chosen, reachable = answer(grounding, pixels).boxes, decode_at(grounding, best, pixels)
        true = (inputs["true"] + 1)[:, [1, 0, 3, 2]]
        right = torch.diag(self._pairs(chosen, true)) >= 0.5
        reached = torch.diag(self._pairs(reachable, true)) >= 0.5
        return {"accuracy": right.float().mean(), "reachable": reached.float().mean()}

    @staticmethod
    def _iou(true: Tensor, anchors: Tensor) -> Tensor:
        return box_iou(true[:, None], yxhw_to_yxyx(anchors)[None])

    @staticmethod
    def _pairs(one: Tensor, other: Tensor) -> Tensor:
        return box_iou(one[:, None], other[None])

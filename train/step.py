"""One step of the optimizer, from micro-batches to new weights, without waiting for the device."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from model.answer import pixels_to_images
from model.boxes import xyxy_to_yxyx
from model.loss import LossConfig, Losses, grounding_loss
from model.targets import attention_targets
from train.config import OptimConfig
from train.data.dataset import Batch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class StepResult(NamedTuple):
    """losses: (4,) means over this rank's micro-batches. taken: whether the weights moved, the same on every rank.
    Both stay on the device."""

    losses: Tensor
    taken: Tensor


class TrainingStep:
    """Moves the weights by one step, unless a loss or gradient of any rank is not finite.

    Then weights, the optimizer's state and the norms' statistics stay as they were. The gradients are summed over all
    ranks, so that what is not finite on one is not finite on any, and all leave out the same steps.
    """

    def __init__(
        self, network: nn.Module, optimizer: Optimizer, loss: LossConfig, optim: OptimConfig, device: torch.device
    ) -> None:
        if optim.precision == "fp16" and device.type == "cpu":
            raise ValueError("optim.precision=fp16 needs a GPU; on a CPU use bf16")
        self._network, self._optimizer, self._loss, self._device = network, optimizer, loss, device
        self._clip_norm = optim.clip_norm or float("inf")
        self._precision = PRECISIONS[optim.precision]
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._precision == torch.float16)

    def __call__(self, batches: Sequence[Batch]) -> StepResult:
        """Train on the micro-batches of one step."""
        kept = self._flat_statistics()
        total = torch.zeros(len(Losses._fields), device=self._device)
        for number, batch in enumerate(batches, start=1):
            with self._without_sync() if number < len(batches) else nullcontext():
                losses = self._losses(batch.to(self._device))
                # times one, or NaN where the loss is infinite though its gradient is not
                spoiled = losses.total * (1 + 0 * losses.total.detach())
                self.scaler.scale(spoiled / len(batches)).backward()
            total += torch.stack([value.detach() for value in losses]) / len(batches)
        self.scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        taken = norm.isfinite()
        # how a scaler tells a fused optimizer to leave a step out, without asking the device; but the scaler looks at
        # single elements, which may be finite where their norm is not
        self._optimizer.found_inf = 1.0 - taken.float()  # type: ignore[attr-defined]
        self._optimizer.step()
        self.scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._statistics:
            valid = torch.where(taken, self._flat_statistics(), kept).split([len(one) for one in self._statistics])
            torch._foreach_copy_(self._statistics, valid)
        return StepResult(total, taken)

    def _flat_statistics(self) -> Tensor:
        """The norms' statistics end to end: one kernel copies them, where one for each would keep a GPU waiting."""
        return torch.cat([torch.empty(0, device=self._device), *self._statistics])

    def _without_sync(self) -> AbstractContextManager[None]:
        """Only the last micro-batch of a step sends its gradients to the other ranks."""
        return self._network.no_sync() if isinstance(self._network, DistributedDataParallel) else nullcontext()

    def _losses(self, batch: Batch) -> Losses:
        autocast = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision if autocast else torch.bfloat16, enabled=autocast):
            grounding = self._network(pixels_to_images(batch.pixels), batch.ids, batch.lengths, batch.image_index)
        true = xyxy_to_yxyx(batch.boxes, batch.image_sizes.float())
        targets = attention_targets(true, image_size=batch.pixels.shape[1])
        return grounding_loss(grounding, true, targets, self._loss)

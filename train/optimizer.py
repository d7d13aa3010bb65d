"""What is optimised, how fast, and when the rate changes."""

import math
from typing import Any, Literal

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from model.gin import GIN
from train.config import OptimConfig

PLATEAUS: dict[str, Literal["min", "max"]] = {  # schedules that look at the accuracy, and which one they wait for
    "plateau": "max",
    "published": "min",  # PyTorch's default, which suits a loss; the authors leave it so and hand over the accuracy
}


def build_optimizer(network: GIN, config: OptimConfig) -> Optimizer:
    """Fused AdamW, which is Adam where weight decay is zero.

    Four groups: the backbone learns at `backbone_lr` times the rate, and vectors (biases, norms) do not decay.
    Parameters that need no gradient are left out.
    """
    groups: list[dict[str, Any]] = []
    for of_backbone in (False, True):
        for of_matrices in (True, False):
            members = [
                parameter
                for name, parameter in network.named_parameters()
                if parameter.requires_grad
                and name.startswith("backbone.") == of_backbone
                and (parameter.ndim > 1) == of_matrices
            ]
            rate = config.lr * (config.backbone_lr if of_backbone else 1.0)
            decay = config.weight_decay if of_matrices else 0.0
            if members and rate > 0:
                groups.append({"params": members, "lr": rate, "weight_decay": decay})
    return AdamW(groups, betas=config.betas, fused=True)


class Schedule:
    """The learning rate over a run; see `OptimConfig.schedule`."""

    def __init__(self, optimizer: Optimizer, config: OptimConfig) -> None:
        self._optimizer = optimizer
        self._warmup = config.warmup
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._plateau: ReduceLROnPlateau | None = None
        if config.schedule in PLATEAUS:
            mode = PLATEAUS[config.schedule]
            self._plateau = ReduceLROnPlateau(optimizer, mode=mode, factor=0.1, patience=config.patience)

    def before_step(self, progress: float) -> None:
        """progress: share of the whole run that is done, 0..1."""
        if self._plateau is None:
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * self._cosine(progress)

    def after_epoch(self, accuracy: float) -> None:
        """accuracy: of the validation."""
        if self._plateau is not None and math.isfinite(accuracy):
            self._plateau.step(accuracy)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {} if self._plateau is None else self._plateau.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if self._plateau is not None:
            self._plateau.load_state_dict(state)

    def _cosine(self, progress: float) -> float:
        """Up from zero during the warm-up, then half a cosine down to zero."""
        if progress < self._warmup:
            return progress / self._warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - self._warmup) / (1 - self._warmup)))

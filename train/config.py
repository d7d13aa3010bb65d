"""What a training run is made of; `configs/*.yaml` set it and `key=value` arguments override it."""

from dataclasses import dataclass, field

from model.config import ModelConfig
from model.loss import LossConfig


@dataclass(frozen=True)
class ScenesConfig:
    """Generated scenes, used where no annotations are named.

    train, val: numbers of pictures. expressions: per picture. seed: of the training pictures; validation takes the
    next one. folder: where they are kept, and found again by a later run.
    """

    train: int = 20_000
    val: int = 500
    expressions: int = 4
    seed: int = 1
    folder: str = "runs/scenes"


@dataclass(frozen=True)
class DataConfig:
    """Annotations and how they are loaded.

    train, val: CSV files. images: folder of their pictures. word_vectors: text file that the embedding is filled
    from. share_images: all rows of a picture are one sample. batch_size: samples per process and step.
    workers: loading processes per training process.
    """

    train: str | None = None
    val: str | None = None
    images: str | None = None
    word_vectors: str | None = None
    share_images: bool = False
    batch_size: int = 16
    workers: int = 1
    scenes: ScenesConfig = field(default_factory=ScenesConfig)

    def __post_init__(self) -> None:
        named = [name for name in ("train", "val", "images") if getattr(self, name) is not None]
        if named and len(named) < 3:
            raise ValueError(f"data.train, data.val and data.images go together; only {', '.join(named)} given")


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation; the defaults are the authors' (Adam).

    weight_decay: over 0 makes it AdamW. schedule: "plateau" (a tenth when validation accuracy stands still for more
    than `patience` epochs) or "cosine" (warm-up over `warmup` of the steps, then down to zero).
    clip_norm: largest gradient norm, 0 for none. precision: "fp32" or "bf16" (autocast).
    """

    epochs: int = 10
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    schedule: str = "plateau"
    patience: int = 2
    warmup: float = 0.05
    clip_norm: float = 0.0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.schedule not in ("plateau", "cosine"):
            raise ValueError(f"optim.schedule is {self.schedule!r}; known: plateau, cosine")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"optim.precision is {self.precision!r}; known: fp32, bf16")


@dataclass(frozen=True)
class TrainConfig:
    """A training run. out: folder of its checkpoints and log. resume: go on from `out`/last.pth. seed: of everything
    drawn at random."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    out: str = "runs/train"
    resume: bool = False
    seed: int = 0

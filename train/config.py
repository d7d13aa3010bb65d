"""What a training run is made of; `configs/*.yaml` set it and `key=value` arguments override it."""

from dataclasses import dataclass, field

from model.config import ModelConfig
from model.loss import LossConfig
from train.data.augment import AugmentConfig


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
    from; vectors from a file are not trained, as the authors' are not. share_images: all rows of a picture are one
    sample. batch_size: samples per process and micro-batch. workers: loading processes per training process. on_error:
    "stop" before training where a row or a picture cannot be used, or "skip" such rows and report them.
    """

    train: str | None = None
    val: str | None = None
    images: str | None = None
    word_vectors: str | None = None
    share_images: bool = False
    batch_size: int = 16
    workers: int = 1
    on_error: str = "stop"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)

    def __post_init__(self) -> None:
        named = [name for name in ("train", "val", "images") if getattr(self, name) is not None]
        if named and len(named) < 3:
            raise ValueError(f"data.train, data.val and data.images go together; only {', '.join(named)} given")
        if self.on_error not in ("stop", "skip"):
            raise ValueError(f"data.on_error is {self.on_error!r}; known: stop, skip")
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size is {self.batch_size}; it must be at least 1")


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation; the defaults are the authors' (Adam).

    weight_decay: over 0 makes it AdamW. schedule: "plateau" (a tenth when validation accuracy stands still for more
    than `patience` epochs) or "cosine" (warm-up over `warmup` of the run, then down to zero).
    clip_norm: largest gradient norm, 0 for none. accumulate: micro-batches per step. precision: "fp32", "bf16" or
    "fp16" (autocast, the last with a scaled loss). compile: run the network through torch.compile.
    backbone_lr: factor of the learning rate for the backbone, 0 freezes it. freeze_norm: the backbone's batch norms
    keep their statistics and weights. skips_in_a_row: so many steps with a loss or gradient that is not finite, one
    after another, end the run; fewer are left out and logged.
    """

    epochs: int = 10
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    schedule: str = "plateau"
    patience: int = 2
    warmup: float = 0.05
    clip_norm: float = 0.0
    accumulate: int = 1
    precision: str = "fp32"
    compile: bool = False
    backbone_lr: float = 1.0
    freeze_norm: bool = False
    skips_in_a_row: int = 10

    def __post_init__(self) -> None:
        if self.schedule not in ("plateau", "cosine"):
            raise ValueError(f"optim.schedule is {self.schedule!r}; known: plateau, cosine")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"optim.precision is {self.precision!r}; known: fp32, bf16, fp16")
        for name in ("epochs", "accumulate", "skips_in_a_row"):
            if getattr(self, name) < 1:
                raise ValueError(f"optim.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"optim.warmup is {self.warmup}; it must be a share of the run, 0 or more and below 1")


@dataclass(frozen=True)
class ResizedConfig:
    """A second stage at a larger input, which starts from the best of the first with a new optimizer.

    The defaults are the authors' "resized" stage. image_size, pyramid_levels: in place of the model's. epochs: of this
    stage. batch_size: in place of the data's.
    """

    image_size: int = 608
    pyramid_levels: tuple[int, ...] = (4, 5, 6, 7)
    epochs: int = 10
    batch_size: int = 16


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    backbone_weights: "torchvision" for its ImageNet weights, or a file of them. start: checkpoint whose weights and
    words the run begins with. resized: second stage, written into the folder `resized` inside `out`. out: folder of
    checkpoints and history. resume: go on from `out`/last.pth if it is there. save_every: steps between two writings
    of last.pth, besides those at an epoch's end. timeout: seconds to wait for another process before giving up.
    seed: of everything drawn at random.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    backbone_weights: str | None = None
    start: str | None = None
    resized: ResizedConfig | None = None
    out: str = "runs/train"
    resume: bool = False
    save_every: int = 1000
    timeout: float = 1800.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start is not None and self.backbone_weights is not None:
            raise ValueError("start brings all weights; backbone_weights cannot be given as well")
        if self.save_every < 1:
            raise ValueError(f"save_every is {self.save_every}; it must be at least 1")

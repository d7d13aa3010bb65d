"""What a training run is made of; `configs/*.yaml` set it and `key=value` arguments override it."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from model.config import ModelConfig
from model.loss import LossConfig
from train.data.augment import AugmentConfig
from train.data.world import EXPRESSIONS


@dataclass(frozen=True)
class ScenesConfig:
    """Generated scenes, used where no annotations are named."""

    train: int = 20_000
    """training pictures"""
    val: int = 500
    """validation pictures"""
    expressions: int = 4
    """expressions per picture"""
    seed: int = 1
    """of the training pictures; validation takes the next one"""
    folder: str = "runs/scenes"
    """where they are kept, and found again by a later run"""

    def __post_init__(self) -> None:
        for name in ("train", "val"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.scenes.{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise ValueError(f"data.scenes.seed is {self.seed}; it must not be negative")
        fewest, most = EXPRESSIONS
        if not fewest <= self.expressions <= most:
            raise ValueError(f"data.scenes.expressions is {self.expressions}; it must be {fewest} to {most}")


@dataclass(frozen=True)
class DataConfig:
    """Annotations and how they are loaded."""

    train: str | None = None
    """CSV file (img_id,bbox,query) to train on; without one, generated scenes"""
    val: str | None = None
    """CSV file to validate on"""
    images: str | None = None
    """folder of the pictures of both"""
    word_vectors: str | None = None
    """text file (GloVe, word2vec) that the embedding is filled from; such vectors are not trained, as the authors' are
    not"""
    share_images: bool = False
    """all rows of a picture are one sample, for which the image part runs once"""
    batch_size: int = 16
    """samples per process and micro-batch"""
    workers: int = 1
    """loading processes per training process"""
    on_error: str = "stop"
    """what to do with rows and pictures that cannot be used: "stop" before training, or "skip" and report them"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """changes made to training pictures"""
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    """generated scenes"""

    def __post_init__(self) -> None:
        named = [name for name in ("train", "val", "images") if getattr(self, name) is not None]
        if named and len(named) < 3:
            raise ValueError(f"data.train, data.val and data.images go together; only {', '.join(named)} given")
        if self.on_error not in ("stop", "skip"):
            raise ValueError(f"data.on_error is {self.on_error!r}; known: stop, skip")
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; it must not be negative")
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size is {self.batch_size}; it must be at least 1")


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation; the defaults are the authors' (Adam)."""

    epochs: int = 10
    """how often all samples are gone through"""
    lr: float = 1e-4
    """learning rate"""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's"""
    weight_decay: float = 0.0
    """of matrices; over 0 it is AdamW"""
    schedule: str = "plateau"
    """of the learning rate: "plateau" (a tenth when validation accuracy stands still), "cosine" (up, then down to 0) or
    "published" (a tenth when validation accuracy does not fall: the authors wait for the lowest one, so while it rises
    the rate goes down after every `patience` + 1 epochs, and so the published numbers were made)"""
    patience: int = 2
    """plateau: epochs that accuracy may stand still; published: that it may not fall"""
    warmup: float = 0.05
    """cosine: share of the run in which the rate goes up"""
    clip_norm: float = 0.0
    """largest gradient norm, 0 for any"""
    accumulate: int = 1
    """micro-batches per step"""
    precision: str = "fp32"
    """"fp32", or autocast to "bf16" or (with a scaled loss) "fp16"."""
    compile: bool = False
    """run the network through torch.compile"""
    backbone_lr: float = 1.0
    """factor of the learning rate for the backbone; 0 freezes it, with its batch norms"""
    freeze_norm: bool = False
    """the backbone's batch norms keep their statistics and weights"""
    skips_in_a_row: int = 10
    """steps whose loss or gradient is not finite are left out and logged; so many in a row end the run"""

    def __post_init__(self) -> None:
        if self.schedule not in ("plateau", "cosine", "published"):
            raise ValueError(f"optim.schedule is {self.schedule!r}; known: plateau, cosine, published")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"optim.precision is {self.precision!r}; known: fp32, bf16, fp16")
        for name in ("epochs", "accumulate", "skips_in_a_row"):
            if getattr(self, name) < 1:
                raise ValueError(f"optim.{name} is {getattr(self, name)}; it must be at least 1")
        if self.patience < 0:
            raise ValueError(f"optim.patience is {self.patience}; it must not be negative")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas are {list(self.betas)}; they must be 0 or more and below 1")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"optim.lr is {self.lr}; it must be finite and over 0")
        for name in ("weight_decay", "clip_norm", "backbone_lr"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"optim.{name} is {getattr(self, name)}; it must be finite and not negative")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"optim.warmup is {self.warmup}; it must be a share of the run, 0 or more and below 1")


@dataclass(frozen=True)
class ResizedConfig:
    """A second stage at a larger input, from the best of the first; the defaults are the authors' "resized" stage."""

    image_size: int = 608
    """in place of the model's"""
    pyramid_levels: tuple[int, ...] = (4, 5, 6, 7)
    """in place of the model's"""
    epochs: int = 10
    """of this stage"""
    batch_size: int = 16
    """in place of the data's"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"resized.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """sizes and parts of the network"""
    data: DataConfig = field(default_factory=DataConfig)
    """annotations and how they are loaded"""
    loss: LossConfig = field(default_factory=LossConfig)
    """options of the loss"""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """optimisation"""
    backbone_weights: str | None = None
    """"torchvision" for its ImageNet weights, or a file of them"""
    start: str | None = None
    """checkpoint whose weights and words the run begins with; it learns the training words that the checkpoint lacks"""
    resized: ResizedConfig | None = None
    """second stage, written into the folder `resized` inside `out`"""
    out: str = "runs/train"
    """folder of checkpoints and history"""
    resume: bool = False
    """go on from last.pth in `out`, if it is there"""
    save_every: int = 1000
    """steps between two writings of last.pth, besides those at an epoch's end"""
    timeout: float = 1800.0
    """seconds to wait for another process before the run is ended"""
    seed: int = 0
    """of everything drawn at random"""

    def __post_init__(self) -> None:
        if self.start is not None and self.backbone_weights is not None:
            raise ValueError("start brings all weights: set backbone_weights=null beside it")
        if self.data.word_vectors is not None and self.start not in (None, str(Path(self.out).parent / "best.pth")):
            # but for a second stage, which begins with its first one's and leaves such vectors as they are
            raise ValueError("start brings the words with their vectors; data.word_vectors cannot be given as well")
        if self.save_every < 1:
            raise ValueError(f"save_every is {self.save_every}; it must be at least 1")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout is {self.timeout}; it must be finite and over 0")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative")

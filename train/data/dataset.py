"""Annotated pictures as the network's inputs and the loss's boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.command import spoken
from model.picture import read_picture, resize
from model.preparation import InvalidInput, Preparation, pad
from train.data.annotations import InvalidData, Row
from train.data.augment import AugmentConfig, augment
from train.data.sampler import Visit


@dataclass(frozen=True)
class Sample:
    """One picture and expressions about it.

    pixels: uint8 (S, S, 3). size: (height, width) of the upright picture. words: ids of each expression.
    boxes: float32 (N, 4) xyxy in pixels. rows: numbers of the rows.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    words: list[list[int]]
    boxes: np.ndarray
    rows: list[int]


@dataclass(frozen=True)
class Batch:
    """B pictures with N expressions in all.

    pixels: uint8 (B, S, S, 3). ids: (N, T). lengths, image_index, rows: (N,). boxes: (N, 4) xyxy in pixels of
    the original picture. image_sizes: (N, 2) as (height, width) of the expression's picture.
    """

    pixels: Tensor
    ids: Tensor
    lengths: Tensor
    image_index: Tensor
    boxes: Tensor
    image_sizes: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on a device, without waiting for the copies."""
        return Batch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory."""
        return Batch(*(getattr(self, field.name).pin_memory() for field in fields(self)))


class GroundingDataset(Dataset[Sample]):
    """Rows as samples.

    share_images: one sample per picture with all its rows, so that the image part of the network runs once for them;
    otherwise one sample per row. augment: changes made to a visit's picture, boxes and expressions, or None.
    seed: what is drawn at random, one of a row's expressions and the augmentation, is a function of it and the visit
    alone, whichever process loads the sample; None always takes the first expression.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        preparation: Preparation,
        share_images: bool,
        seed: int | None = None,
        augment: AugmentConfig | None = None,
    ) -> None:
        self.preparation = preparation
        self.seed = seed
        self.augment = augment if augment != AugmentConfig() else None
        groups: dict[Path | int, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.image if share_images else row.number, []).append(row)
        self.groups = list(groups.values())

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, visit: Visit) -> Sample:
        group = self.groups[visit.sample]
        expressions = [row.expressions[0] for row in group]
        boxes = np.array([row.box for row in group], dtype=np.float32)
        random = None
        if self.seed is not None:
            random = np.random.default_rng((self.seed, *visit))
            expressions = [row.expressions[random.integers(len(row.expressions))] for row in group]
        try:
            data = group[0].image.read_bytes()
            if self.augment is not None and random is not None:
                picture, boxes, expressions = augment(read_picture(data)[0], boxes, expressions, self.augment, random)
                pixels = resize(picture, self.preparation.image_size, self.preparation.resize_filter)
                size = picture.height, picture.width
            else:
                pixels, size = self.preparation.image(data)
            words = [self.preparation.words(expression) for expression in expressions]
        except (InvalidInput, OSError) as error:
            raise InvalidData(f"{group[0].image} (line {group[0].line} and others about it): {spoken(error)}") from None
        return Sample(pixels, size, words, boxes, [row.number for row in group])


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples to one batch."""
    counts = [len(sample.words) for sample in samples]
    ids, lengths = pad([words for sample in samples for words in sample.words])
    return Batch(
        pixels=torch.from_numpy(np.stack([sample.pixels for sample in samples])),
        ids=torch.from_numpy(ids),
        lengths=torch.from_numpy(lengths),
        image_index=torch.arange(len(samples)).repeat_interleave(torch.tensor(counts)),
        boxes=torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
        image_sizes=torch.tensor([sample.size for sample in samples]).repeat_interleave(torch.tensor(counts), dim=0),
        rows=torch.tensor([number for sample in samples for number in sample.rows]),
    )

"""From a configuration to loaders: annotations checked, vocabulary made, scenes generated where none are named."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from model.preparation import Preparation
from model.word_vectors import read_word_vectors
from model.words import Vocabulary
from train.config import DataConfig, ScenesConfig, TrainConfig
from train.data.annotations import InvalidData, Problem, Row
from train.data.check import check_annotations
from train.data.dataset import GroundingDataset, collate
from train.data.sampler import TrainingBatches, Visit
from train.data.scenes import write_scenes
from train.processes import by_first_rank

Loader = DataLoader[Any]  # its batches are `Batch`: collated samples, which the type of a loader cannot say
SHOWN = 20  # unusable rows, or new words, that are printed; train.data.check prints all rows


@dataclass(frozen=True)
class Data:
    """What training needs: this rank's loaders, the batches to tell the epoch, vocabulary and word vectors.

    val_unusable: rows of the validation that could not be used.
    """

    train: Loader
    batches: TrainingBatches
    val: Loader
    val_unusable: int
    vocabulary: Vocabulary
    vectors: np.ndarray | None


def load_data(config: TrainConfig, known: Vocabulary | None = None, resumes: bool = False) -> Data:
    """known: the vocabulary of the checkpoint that the run goes on from, which gets the training words that it lacks
    unless the run `resumes`; without one it is made from the training expressions.

    Raises InvalidData where annotations or pictures cannot be used, before any training.
    """
    (train_rows, _), (val_rows, val_unusable) = (_usable_rows(config, split) for split in ("train", "val"))
    vocabulary, vectors = _vocabulary(config, train_rows, known)
    if known is not None:
        _report_new_words(vocabulary.words[len(known.words) :], resumes)
        vocabulary = known if resumes else vocabulary
    model, data = config.model, config.data
    preparation = Preparation(model.image_size, model.resize_filter, model.max_words, vocabulary)
    samples = GroundingDataset(train_rows, preparation, data.share_images, config.seed, data.augment)
    batches = TrainingBatches(len(samples), data.batch_size, config.optim.accumulate, config.seed)
    if config.resized is not None:  # or a run with too few samples for it would end once its first stage is done
        TrainingBatches(len(samples), config.resized.batch_size, config.optim.accumulate, config.seed)
    train_loader = _loader(samples, batches, data.workers)
    val_loader = evaluation_loader(val_rows, preparation, data.workers)
    return Data(train_loader, batches, val_loader, val_unusable, vocabulary, vectors)


def evaluation_loader(rows: list[Row], preparation: Preparation, workers: int) -> Loader:
    """This rank's share of the rows, each of them once over all ranks; a picture's rows share its image part."""
    dataset = GroundingDataset(rows, preparation, share_images=True)
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    visits = [Visit(0, index) for index in range(rank, len(dataset), ranks)]
    return _loader(dataset, [visits[start : start + 16] for start in range(0, len(visits), 16)], workers)


class _Loader(DataLoader[Any]):
    """What a worker cannot use is told as without workers: PyTorch makes the whole traceback the error's message."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return _in_one_line(super().__iter__())  # begun here and now: beginning draws from the random state


def _in_one_line(batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except InvalidData as error:
        raise InvalidData(str(error).rpartition(f"{InvalidData.__name__}: ")[2].strip()) from None


def _loader(dataset: GroundingDataset, batches: Any, workers: int) -> Loader:
    return _Loader(
        dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate,
        pin_memory=torch.cuda.is_available(), persistent_workers=workers > 0, prefetch_factor=4 if workers else None,
    )  # fmt: skip


def _usable_rows(config: TrainConfig, split: str) -> tuple[list[Row], int]:
    """Rows of a split and how many of it cannot be used. The first rank looks, and all hear the same."""
    data = config.data
    path, images = (data.train if split == "train" else data.val), data.images
    if path is None or images is None:
        path, images = _scenes(data.scenes, split)
    rows, problems = by_first_rank(lambda: check_annotations(path, images, config.model.max_words))
    _report(data, str(path), rows, problems)
    return rows, len(problems)


def _report(data: DataConfig, path: str, rows: list[Row], problems: list[Problem]) -> None:
    """Print what is wrong, once. Raises InvalidData unless such rows are to be skipped and others are left."""
    if problems and (not dist.is_initialized() or dist.get_rank() == 0):
        print(*problems[:SHOWN], sep="\n", file=sys.stderr)
        if len(problems) > SHOWN:
            print(f"... and {len(problems) - SHOWN} more (python -m train.data.check lists all)", file=sys.stderr)
    if problems and data.on_error == "stop":
        raise InvalidData(
            f"{len(problems)} of {len(rows) + len(problems)} rows of {path} cannot be used; mend them, or leave them "
            "out with data.on_error=skip"
        )
    if not rows:
        raise InvalidData(f"no row of {path} can be used")
    if problems and (not dist.is_initialized() or dist.get_rank() == 0):
        print(f"{path}: {len(problems)} rows skipped, {len(rows)} used", file=sys.stderr)


def _scenes(config: ScenesConfig, split: str) -> tuple[str, str]:
    """CSV and pictures of generated scenes; generated by the first rank where they are not there yet."""
    count, seed = (config.train, config.seed) if split == "train" else (config.val, config.seed + 1)
    folder = Path(config.folder) / f"{split}-{count}x{config.expressions}-seed{seed}"
    path = folder / "scenes.csv"
    by_first_rank(lambda: path.exists() or write_scenes(folder, count, seed, config.expressions))
    return str(path), str(folder / "images")


def _vocabulary(config: TrainConfig, rows: list[Row], known: Vocabulary | None) -> tuple[Vocabulary, np.ndarray | None]:
    """The known words or the vectors' file's first, in their order, then the training words that these lack."""
    trained = Vocabulary.of(expression for row in rows for expression in row.expressions)
    if known is not None:
        return known.extended(trained), None
    if config.data.word_vectors is None:
        return trained, None
    words, vectors = read_word_vectors(config.data.word_vectors, config.model.word_width)
    return Vocabulary(words).extended(trained), vectors


def _report_new_words(new: tuple[str, ...], resumes: bool) -> None:
    if new and (not dist.is_initialized() or dist.get_rank() == 0):
        more = f" and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
        lacked = "new to the network that the run begins with"
        what = "not among the words that the run began with, and not learned" if resumes else lacked
        print(f"{what}: {', '.join(new[:SHOWN])}{more}", file=sys.stderr)

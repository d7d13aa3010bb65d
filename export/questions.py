"""Questions that exported files are asked before they are believed: made-up ones, and those of an annotated CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.checkpoint import Checkpoint
from model.preparation import MAX_EXPRESSIONS, InvalidInput, Preparation, pad
from train.data.annotations import InvalidData, Row, read_rows

Question = dict[str, Tensor]  # the inputs of the graph `gin`, by name


def made_up_questions(checkpoint: Checkpoint) -> Iterator[Question]:
    """Several batches, word counts and images."""
    longest = checkpoint.config.max_words
    cases = [
        (1, [3, longest, 1]),
        (2, [2, 4]),
        (1, [1]),
        (1, [longest]),
        (3, [1, 2, longest // 2, longest, 2, 7]),
        (4, [6]),
    ]
    for seed, (images, lengths) in enumerate(cases):
        yield make_question(checkpoint, images, [min(max(length, 1), longest) for length in lengths], seed)


def make_question(checkpoint: Checkpoint, images: int, lengths: Sequence[int], seed: int) -> Question:
    """Smooth random pictures and random words, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    size = checkpoint.config.image_size
    coarse = torch.rand(images, 3, 8, 8, generator=random)
    pictures = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1) * 255
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(1, len(checkpoint.vocabulary), (length,), generator=random)
    return {
        "images": pictures.to(torch.uint8).permute(0, 2, 3, 1).contiguous(),
        "expression_ids": ids,
        "lengths": torch.tensor(lengths),
        "image_index": torch.randint(images, (len(lengths),), generator=random),
        "image_sizes": torch.randint(1, 4_000, (images, 2), generator=random),
    }


@dataclass(frozen=True)
class Example:
    """Expressions about one annotated picture. boxes: float32 (N, 4), the true ones, xyxy in pixels."""

    question: Question
    boxes: Tensor


def read_examples(
    path: Path, preparation: Preparation, pictures: int | None = None, images: Path | None = None
) -> list[Example]:
    """The first `pictures`, or all, of a CSV. images: their folder; without one it is `images` beside the CSV.

    Of a row with several expressions the first is asked; a picture with more rows than one question may hold is asked
    about several times. Raises InvalidData naming file and line, or OSError.
    """
    rows_of: dict[Path, list[Row]] = {}
    for row in read_rows(path, images or path.parent / "images"):
        rows_of.setdefault(row.image, []).append(row)
    examples = []
    for image, rows in list(rows_of.items())[:pictures]:
        words: list[list[int]] = []
        try:
            pixels, size = preparation.image(image.read_bytes())
            for row in rows:
                words.append(preparation.words(row.expressions[0]))
        except InvalidInput as error:
            raise InvalidData(f"{path}, line {rows[len(words)].line}, {image.name}: {error}") from None
        for start in range(0, len(rows), MAX_EXPRESSIONS):
            asked = slice(start, start + MAX_EXPRESSIONS)
            ids, lengths = pad(words[asked])
            question = {
                "images": torch.from_numpy(pixels)[None],
                "expression_ids": torch.from_numpy(ids),
                "lengths": torch.from_numpy(lengths),
                "image_index": torch.zeros(len(ids), dtype=torch.int64),
                "image_sizes": torch.tensor([size]),
            }
            examples.append(Example(question, torch.tensor([row.box for row in rows[asked]])))
    return examples


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The same as NumPy arrays."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}

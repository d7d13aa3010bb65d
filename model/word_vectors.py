"""Word vectors from a text file (GloVe, or word2vec's text format) into the network's embedding."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from model.words import SPECIAL


class InvalidWordVectors(ValueError):
    """A word-vector file that cannot be used; the message names the file and the line."""


def read_word_vectors(path: str | Path, width: int) -> tuple[list[str], np.ndarray]:
    """Words and float32 (words, width) vectors; of words that differ in case alone the first is kept.

    A line is a word and `width` numbers between spaces; word2vec's first line (two integers) is passed over.
    """
    words: dict[str, np.ndarray] = {}
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                fields = line.decode("utf-8").rstrip().split(" ")
            except UnicodeDecodeError as error:
                raise InvalidWordVectors(f"{path}, line {number} is not UTF-8: {error}") from None
            if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                continue
            if len(fields) <= width:
                raise InvalidWordVectors(f"{path}, line {number}: {len(fields) - 1} numbers, expected {width}")
            try:
                vector = np.array(fields[-width:], dtype=np.float32)
            except ValueError as error:
                raise InvalidWordVectors(f"{path}, line {number}: {error}") from None
            if not np.isfinite(vector).all():
                raise InvalidWordVectors(f"{path}, line {number}: a number is not finite")
            words.setdefault(" ".join(fields[:-width]).lower(), vector)
    if not words:
        raise InvalidWordVectors(f"{path} holds no word vectors")
    return list(words), np.stack(list(words.values()))


@torch.no_grad()
def fill_embedding(embedding: nn.Embedding, vectors: np.ndarray | None) -> None:
    """Set the vectors of the vocabulary's first words, as many as there are; further words keep theirs.

    Padding and unknown words become zero: they say nothing.
    """
    embedding.weight[: len(SPECIAL)] = 0
    if vectors is not None:
        embedding.weight[len(SPECIAL) : len(SPECIAL) + len(vectors)] = torch.from_numpy(vectors)

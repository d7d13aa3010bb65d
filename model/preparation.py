"""What turns a client's bytes and sentences into the network's inputs, once for training, export and serving.

NumPy and Pillow only: a server that prepares inputs needs no PyTorch.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.picture import RESIZE_FILTERS, InvalidInput, read_picture, resize
from model.words import PADDING, UNKNOWN, Vocabulary, split_words

__all__ = ["InvalidInput", "Preparation", "pad"]

MAX_EXPRESSIONS = 64  # in one request
MAX_CHARACTERS = 1_000  # of one expression


@dataclass(frozen=True)
class Preparation:
    """Input preparation of one network.

    image_size: side of the square input in pixels. resize_filter: a key of `RESIZE_FILTERS`.
    max_words: longest expression answered. vocabulary: the words the network knows.
    """

    image_size: int
    resize_filter: str
    max_words: int
    vocabulary: Vocabulary

    def __post_init__(self) -> None:
        if self.resize_filter not in RESIZE_FILTERS:
            raise ValueError(f"resize_filter is {self.resize_filter!r}; known: {', '.join(RESIZE_FILTERS)}")

    def image(self, data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
        """Decode and resize: uint8 (S, S, 3) RGB, and (height, width) of the upright picture. Raises InvalidInput.

        A much larger JPEG is decoded at a smaller scale that leaves the resizing twice the pixels it ends with, but not
        for "nearest", which takes single pixels as they are.
        """
        picture, size = read_picture(data, least=None if self.resize_filter == "nearest" else 2 * self.image_size)
        return resize(picture, self.image_size, self.resize_filter), size

    def words(self, expression: str | bytes) -> list[int]:
        """Word ids of one expression, at least one. Raises InvalidInput."""
        if isinstance(expression, bytes):
            try:
                expression = expression.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidInput(f"the expression is not UTF-8: {error}") from None
        if len(expression) > MAX_CHARACTERS:
            raise InvalidInput(
                f"the expression has {len(expression):,} characters; at most {MAX_CHARACTERS:,} are accepted"
            )
        words = split_words(expression)
        if not words:
            raise InvalidInput(f"the expression {expression!r} has no words")
        if len(words) > self.max_words:
            raise InvalidInput(f"the expression has {len(words)} words; at most {self.max_words} are accepted")
        return self.vocabulary.ids(words)

    def unknown_words(self, expression: str) -> list[str]:
        """The words of one expression that the network does not know, as it is split."""
        words = split_words(expression)
        return [word for word, number in zip(words, self.vocabulary.ids(words), strict=True) if number == UNKNOWN]

    def expressions(self, expressions: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Word ids int64 (N, T), padded at the end, and lengths int64 (N,). Raises InvalidInput naming the culprit."""
        if not 1 <= len(expressions) <= MAX_EXPRESSIONS:
            raise InvalidInput(f"got {len(expressions)} expressions; 1 to {MAX_EXPRESSIONS} are accepted")
        rows = []
        for number, expression in enumerate(expressions, start=1):
            try:
                rows.append(self.words(expression))
            except InvalidInput as error:
                raise InvalidInput(f"expression {number} of {len(expressions)}: {error}") from None
        return pad(rows)

    def save(self, path: Path) -> None:
        """Write as JSON, which `load` reads."""
        facts = {
            "image_size": self.image_size,
            "resize_filter": self.resize_filter,
            "max_words": self.max_words,
            "words": self.vocabulary.words,
        }
        path.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Preparation":
        """Read what `save` wrote."""
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(facts["image_size"], facts["resize_filter"], facts["max_words"], Vocabulary(facts["words"]))


def pad(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lists of word ids to ids int64 (N, T), T the longest, padded at the end, and lengths int64 (N,)."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.full((len(rows), int(lengths.max())), PADDING, dtype=np.int64)
    for row, target in zip(rows, ids, strict=True):
        target[: len(row)] = row
    return ids, lengths

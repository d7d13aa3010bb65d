"""Expressions to word ids: how an expression is split, and the vocabulary that numbers the words."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

PADDING, UNKNOWN = 0, 1  # ids of the two entries that every vocabulary begins with
SPECIAL = ("<pad>", "<unk>")  # cannot collide with a word: splitting never leaves < or > inside one

_PIECE = re.compile(r"[^\W_]+|[^\w\s]")  # a run of letters and digits, or one other visible character


def split_words(expression: str) -> list[str]:
    """Split an expression into lower-case words.

    Compatibility forms are unified (NFKC) and case is dropped. A word is a run of letters and digits, or one symbol
    (an emoji, a plus sign). Spaces, underscores, punctuation, marks and control characters separate and are dropped.
    """
    pieces = _PIECE.findall(unicodedata.normalize("NFKC", expression).lower())
    return [piece for piece in pieces if unicodedata.category(piece[0])[0] not in "PMC"]


class Vocabulary:
    """The words a network knows, numbered from 2; 0 is padding and 1 stands for every unknown word."""

    def __init__(self, words: Sequence[str]) -> None:
        if len(set(words)) != len(words):
            repeated = [word for word, count in Counter(words).items() if count > 1]
            raise ValueError(f"a vocabulary holds each word once, got repeated {repeated[:5]}")
        self.words = tuple(words)
        self._ids = {word: index for index, word in enumerate(self.words, start=len(SPECIAL))}

    @classmethod
    def of(cls, expressions: Iterable[str]) -> "Vocabulary":
        """The words of `expressions`, most frequent first, ties in alphabetical order."""
        counts = Counter(word for expression in expressions for word in split_words(expression))
        return cls(sorted(counts, key=lambda word: (-counts[word], word)))

    def extended(self, other: "Vocabulary") -> "Vocabulary":
        """These words under their ids, then those of another vocabulary that it lacks, in their order."""
        return Vocabulary(self.words + tuple(word for word in other.words if word not in self._ids))

    def __len__(self) -> int:
        """Number of entries of the embedding: the words and the two special ones."""
        return len(self.words) + len(SPECIAL)

    def ids(self, words: Iterable[str]) -> list[int]:
        """The id of each word; `UNKNOWN` where the vocabulary lacks it."""
        return [self._ids.get(word, UNKNOWN) for word in words]

    def spelled(self, ids: Iterable[int]) -> list[str]:
        """The inverse of `ids`, with `<unk>` for what the vocabulary lacks."""
        entries = SPECIAL + self.words
        return [entries[index] for index in ids]

"""Annotations of a dataset by split, cleaned, written as the originals' CSVs, and summed up in a table."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from model.checkpoint import write_atomically
from model.words import split_words
from train.data.annotations import COLUMNS, Box, InvalidData


@dataclass(frozen=True)
class Annotation:
    """One box of a picture and what is said of it.

    image: as the CSV names it. box: x1, y1, x2, y2 in pixels. category: in the publisher's words, if known.
    """

    image: str
    box: Box
    expressions: tuple[str, ...]
    category: str | None = None


@dataclass
class Splits:
    """Annotations by split ("train", "val", "test", ...) and how many were dropped by (split, reason)."""

    annotations: dict[str, list[Annotation]] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, split: str, annotation: Annotation) -> None:
        """Take an annotation in, cleaned: spaces for underscores, no expressions without a word, such as "?", of which
        a network reads nothing; or count why it is dropped."""
        expressions = tuple(" ".join(text.replace("_", " ").split()) for text in annotation.expressions)
        kept = tuple(text for text in expressions if split_words(text))
        x1, y1, x2, y2 = annotation.box
        if not all(map(math.isfinite, annotation.box)) or not (x1 < x2 and y1 < y2):
            self.drop(split, "box empty or inside out")
        elif not kept:
            self.drop(split, "no expression")
        else:
            box = x1, y1, x2, y2
            self.annotations.setdefault(split, []).append(Annotation(annotation.image, box, kept, annotation.category))

    def drop(self, split: str, reason: str) -> None:
        """Count an annotation that cannot be used."""
        self.dropped[split, reason] += 1


def write_splits(splits: Splits, out: Path) -> None:
    """Write `train.csv` (all expressions of a box in a row), `train_flat.csv` and every other split (an expression a
    row, as the originals), and beside each with known categories `SPLIT_categories.csv`."""
    if not splits.annotations.get("train"):
        raise InvalidData("the source has no annotation for training that could be used")
    for split, annotations in splits.annotations.items():
        if split == "train":
            _write_split(out, "train", [(one, str(list(one.expressions))) for one in annotations])
        flat = [(one, _quoted(expression)) for one in annotations for expression in one.expressions]
        _write_split(out, "train_flat" if split == "train" else split, flat)


def _write_split(out: Path, name: str, rows: Sequence[tuple[Annotation, str]]) -> None:
    _write_csv(out / f"{name}.csv", COLUMNS, ((one.image, str(list(one.box)), query) for one, query in rows))
    if all(one.category is not None for one, _ in rows):
        categories = ((row, one.category) for row, (one, _) in enumerate(rows))
        _write_csv(out / f"{name}_categories.csv", ("row", "category"), categories)


def _quoted(expression: str) -> str:
    """An expression that begins like a list is written as a list of one, so that it is not read as one."""
    return str([expression]) if expression.startswith("[") else expression


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(text.getvalue().encode(), path)


def summarise(splits: Splits) -> Table:
    """What was written, and what was dropped and why."""
    table = Table("split", "images", "boxes", "expressions", "dropped")
    names = list(splits.annotations) + sorted({split for split, _ in splits.dropped} - splits.annotations.keys())
    for split in names:
        annotations = splits.annotations.get(split, [])
        images = len({one.image for one in annotations})
        expressions = sum(len(one.expressions) for one in annotations)
        reasons = [f"{count} {reason}" for (where, reason), count in splits.dropped.items() if where == split]
        table.add_row(split, str(images), str(len(annotations)), str(expressions), "\n".join(reasons) or "none")
    return table

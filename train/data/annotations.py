"""Annotation files: the originals' CSV (`img_id,bbox,query`) read and checked."""

import ast
import contextlib
import csv
import os
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("img_id", "bbox", "query")
_QUOTING = reprlib.Repr()  # of what may be of any length
_QUOTING.maxstring = 100
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels


class InvalidData(ValueError):
    """Annotations or pictures that cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class Row:
    """One annotation. number: row of the CSV, from 0, as in published predictions. line: of the file, from 1, where the
    row ends, for messages; 0 of a row that no file has."""

    number: int
    image: Path
    box: Box
    expressions: tuple[str, ...]
    line: int = 0


@dataclass(frozen=True)
class Problem:
    """Why a row of a file cannot be used. line: where it ends, from 1."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


def read_annotations(path: str | Path, images: str | Path) -> tuple[list[Row], list[Problem]]:
    """The rows of a CSV whose pictures lie in `images`, and those that cannot be used. Raises InvalidData where the
    file is not such a CSV at all, or OSError."""
    rows, problems = [], []
    folder = ImageFolder(Path(images))
    for number, (line, fields) in enumerate(read_table(path, COLUMNS)):
        try:
            refuse_surplus(fields)
            box, query = _proper_box(fields["bbox"]), _parse_query(fields["query"])
            if not fields["img_id"]:
                raise ValueError("img_id is empty")
            rows.append(Row(number, folder.find(fields["img_id"]), box, query, line))
        except InvalidData:
            raise
        except ValueError as error:
            problems.append(Problem(str(path), line, str(error)))
    return rows, problems


def read_boxes(path: str | Path) -> list[Box]:
    """The box of every row of a CSV, as it is: it may be empty or inside out. Nothing else has to be right.

    Raises InvalidData, also for a row whose box is not four numbers, or OSError.
    """
    boxes = []
    for line, fields in read_table(path, ("bbox",)):
        try:
            boxes.append(parse_box(fields["bbox"]))
        except ValueError as error:
            raise InvalidData(f"{path}, line {line}: {error}") from None
    return boxes


def read_table(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str | None, Any]]]:
    """Line of the file, from 1, where every row of a CSV ends, and its fields, strings by their column's name; a row
    that is too short has None for what it lacks, and of one that is too long the surplus is a list under None.

    Raises InvalidData where the file is no CSV, lacks one of the columns or has no rows, or OSError.
    """
    empty = True
    with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets begin such files with a mark
        reader = csv.DictReader(file)
        try:
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise InvalidData(f"{path} has no column {', '.join(missing)}; its header must be {','.join(columns)}")
            for fields in reader:
                empty = False
                yield reader.line_num, fields
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidData(f"{path} is not a CSV in UTF-8: {error}") from None
    if empty:
        raise InvalidData(f"{path} has no rows")


def refuse_surplus(fields: Mapping[str | None, Any]) -> None:
    """Raise ValueError for a row of more fields than the header: most likely something was cut off at its comma."""
    if any(fields.get(None, ())):
        raise ValueError("it has more fields than the header; a box, or a sentence with commas, needs quotes")


def read_rows(path: str | Path, images: str | Path) -> list[Row]:
    """The rows of a CSV of which every one can be used. Raises InvalidData for the first that cannot, or OSError."""
    rows, problems = read_annotations(path, images)
    if problems:
        raise InvalidData(str(problems[0]))
    return rows


def parse_box(text: str | None) -> Box:
    """Four finite numbers in a list. Raises ValueError."""
    try:
        box = _literal(text)
    except ValueError:
        raise ValueError(f"bbox {_QUOTING.repr(text)} is not a Python list") from None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        raise ValueError(f"bbox {_QUOTING.repr(text)} is not a list [x1, y1, x2, y2]")
    if not all(abs(side) <= sys.float_info.max for side in box):
        raise ValueError(f"bbox {_QUOTING.repr(text)} holds a number that is not finite")
    x1, y1, x2, y2 = (float(side) for side in box)
    return x1, y1, x2, y2


class ImageFolder:
    """Finds pictures by their identifiers, each looked for once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, Path] = {}

    def find(self, name: str) -> Path:
        """The picture's file, whose suffix .jpg the name may lack. Raises ValueError where there is none, InvalidData
        where there is no such folder."""
        if name not in self._found:
            for candidate in (self._folder / name, self._folder / f"{name}.jpg"):  # Flickr30k's have no suffix
                if os.path.isfile(candidate):  # Path's own fails for a long name
                    self._found[name] = candidate
                    break
            else:
                if not os.path.isdir(self._folder):
                    raise InvalidData(f"there is no folder {str(self._folder)!r} of pictures")
                raise ValueError(f"there is no picture {_QUOTING.repr(name)} in {self._folder}")
        return self._found[name]


def _proper_box(text: str | None) -> Box:
    x1, y1, x2, y2 = parse_box(text)
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"bbox {text} is inside out or empty: it must be [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _parse_query(text: str | None) -> tuple[str, ...]:
    """A list of sentences, or a sentence, which may begin with a bracket as well: ReferIt's test has `[pool`."""
    queries: object = [text]
    if (text or "").startswith("["):
        with contextlib.suppress(ValueError):
            queries = _literal(text)
    if not isinstance(queries, list) or not queries or not all(isinstance(query, str) for query in queries):
        raise ValueError(f"query {_QUOTING.repr(text)} is neither a sentence nor a list of sentences")
    return tuple(queries)


def _literal(text: str | None) -> object:
    """A Python literal. Raises ValueError where it is none."""
    try:
        return ast.literal_eval(text or "")
    except (TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None

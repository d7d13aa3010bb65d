"""Annotation files: the originals' CSV (`img_id,bbox,query`) read and checked."""

import ast
import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

COLUMNS = ("img_id", "bbox", "query")
ROUNDING = 1.0  # pixels by which published boxes may leave the picture


class InvalidData(ValueError):
    """Annotations or pictures that cannot be used; the message names the file and the row."""


@dataclass(frozen=True)
class Row:
    """One annotation. box: x1, y1, x2, y2 in pixels. number: row of the CSV, from 0, as in published predictions."""

    number: int
    image: Path
    box: tuple[float, float, float, float]
    expressions: tuple[str, ...]


def read_rows(path: str | Path, images: str | Path) -> list[Row]:
    """Read a CSV whose pictures lie in `images`. Raises InvalidData or FileNotFoundError."""
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InvalidData(f"{path} has no column {', '.join(missing)}; its header must be {','.join(COLUMNS)}")
        for number, fields in enumerate(reader):
            try:
                image = _find_image(Path(images), fields["img_id"])
                rows.append(Row(number, image, _parse_box(fields["bbox"]), _parse_query(fields["query"])))
            except ValueError as error:
                raise InvalidData(f"{path}, row {number}: {error}") from None
    if not rows:
        raise InvalidData(f"{path} has no rows")
    return rows


def check_pictures(rows: Iterable[Row]) -> None:
    """Read every picture's header: it is a picture and each box lies in it. Raises InvalidData."""
    sizes: dict[Path, tuple[int, int]] = {}
    for row in rows:
        if row.image not in sizes:
            sizes[row.image] = _picture_size(row)
        width, height = sizes[row.image]
        x1, y1, x2, y2 = row.box
        if x1 < -ROUNDING or y1 < -ROUNDING or x2 > width + ROUNDING or y2 > height + ROUNDING:
            raise InvalidData(f"row {row.number}: box {list(row.box)} lies outside {row.image} ({width} x {height})")


def _picture_size(row: Row) -> tuple[int, int]:
    """(width, height) of the upright picture, from its header."""
    try:
        with Image.open(row.image) as picture:
            turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientations that exchange the sides
            return (picture.height, picture.width) if turned else picture.size
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and others
        raise InvalidData(f"row {row.number}: {row.image} is not a picture: {error}") from None


def _find_image(images: Path, name: str) -> Path:
    for candidate in (images / name, images / f"{name}.jpg"):  # Flickr30k's identifiers have no suffix
        if name and candidate.is_file():
            return candidate
    raise ValueError(f"there is no picture {name!r} in {images}")


def _parse_box(text: str) -> tuple[float, float, float, float]:
    box = _literal(text, "bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        raise ValueError(f"bbox {text!r} is not a list [x1, y1, x2, y2]")
    x1, y1, x2, y2 = (float(side) for side in box)
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"bbox {text} is inside out or empty: it must have x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _parse_query(text: str) -> tuple[str, ...]:
    queries = _literal(text, "query") if text.startswith("[") else [text]
    if not isinstance(queries, list) or not queries or not all(isinstance(query, str) for query in queries):
        raise ValueError(f"query {text!r} is neither a sentence nor a list of sentences")
    return tuple(queries)


def _literal(text: str | None, column: str) -> object:
    try:
        return ast.literal_eval(text or "")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{column} {text!r} is not a Python list") from None

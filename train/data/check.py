"""Look for rows that training or evaluation could not use.

    python -m train.data.check CSV --images DIR

Prints every such row with its cause; the exit code is 0 if there is none, 1 if there are some.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model.command import run_command, spoken
from model.config import ModelConfig
from model.picture import InvalidInput, read_picture
from model.preparation import Preparation
from model.words import Vocabulary
from train.data.annotations import Problem, Row, read_annotations
from train.progress import track

ROUNDING = 1.0  # pixels by which published boxes may leave the picture


def check_annotations(path: str | Path, images: str | Path, max_words: int) -> tuple[list[Row], list[Problem]]:
    """The rows of a CSV that can be used, and why the others cannot, in their order.

    Every picture is decoded whole. Raises InvalidData where the file is no such CSV, or OSError.
    """
    rows, unreadable = read_annotations(path, images)
    good, unusable = check_rows(rows, path, max_words)
    return good, sorted(unreadable + unusable, key=lambda problem: problem.line)


def check_rows(rows: Sequence[Row], path: str | Path, max_words: int) -> tuple[list[Row], list[Problem]]:
    """The same of rows that were read from `path`."""
    sizes = _decode(dict.fromkeys(row.image for row in rows))
    preparation = Preparation(ModelConfig.image_size, ModelConfig.resize_filter, max_words, Vocabulary([]))
    reasons = [_wrong_with(row, sizes[row.image], preparation) for row in rows]
    good = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    problems = [(row.line, reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    return good, [Problem(str(path), line, reason) for line, reason in problems]


def _decode(pictures: Iterable[Path]) -> dict[Path, tuple[int, int] | str]:
    """(width, height) of each upright picture, or what is wrong with it. Pillow decodes outside Python's lock."""
    pictures = list(pictures)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(_decode_one, pictures)
        return dict(zip(pictures, track(results, "checking pictures:", len(pictures)), strict=True))


def _decode_one(path: Path) -> tuple[int, int] | str:
    try:
        height, width = read_picture(path.read_bytes(), least=1)[1]
        return width, height
    except (InvalidInput, OSError) as error:
        return spoken(error)


def _wrong_with(row: Row, size: tuple[int, int] | str, preparation: Preparation) -> str | None:
    if isinstance(size, str):
        return f"{row.image} cannot be used: {size}"
    x1, y1, x2, y2 = row.box
    if x1 < -ROUNDING or y1 < -ROUNDING or x2 > size[0] + ROUNDING or y2 > size[1] + ROUNDING:
        return f"box {list(row.box)} lies outside {row.image} ({size[0]} x {size[1]})"
    if x2 - x1 < 1 and y2 - y1 < 1:
        return f"box {list(row.box)} is smaller than a pixel; its corners are in pixels, not in shares of the picture"
    for expression in row.expressions:
        try:
            preparation.words(expression)
        except InvalidInput as error:
            return str(error)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.data.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("csv", metavar="CSV", help="annotations: img_id,bbox,query")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures")
    arguments = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _check(arguments.csv, arguments.images))


def _check(path: str, images: str) -> int:
    good, problems = check_annotations(path, images, ModelConfig().max_words)
    for problem in problems:
        print(problem)
    pictures = len({row.image for row in good})
    print(f"{len(good)} rows about {pictures} pictures can be used, {len(problems)} rows cannot")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `python -m client IMAGE... EXPRESSION...`, answers on stdout, one line on stderr if it fails."""

import argparse
import glob
import json
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from client import arguments, draw
from client.answers import Answers, Box, Candidate, Grounding
from client.errors import GroundingError, Refused
from client.pictures import file_bytes
from client.progress import Progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_WIDTHS = (5, 5, 7, 7, 7, 7)  # cells of a table's numbers: coordinates up to 99999.9 pixels


def build_parser() -> arguments.Parser:
    """All arguments of the command."""
    parser = arguments.Parser(
        prog="python -m client",
        usage="%(prog)s IMAGE [IMAGE ...] EXPRESSION [EXPRESSION ...] [options]",
        description="Find the thing that each expression names, by asking a running server.",
        epilog=f"The first word is an image, and so are those after it that end in {', '.join(SUFFIXES)}; the rest are "
        f"expressions. {arguments.EXIT_CODES}",
    )
    parser.add_argument(
        "words",
        metavar="IMAGE EXPRESSION",
        nargs="+",
        help='image files or patterns, such as "photos/*.jpg", and what to find, such as "the red car"',
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each image instead of a table")
    parser.add_argument(
        "--save",
        metavar="OUT",
        type=Path,
        help="write the picture, with the boxes drawn into it, to this file; for several images, into this folder",
    )
    parser.add_argument(
        "--attention", action="store_true", help="light up where the network looked, in what --save writes"
    )
    parser.add_argument(
        "--top-k",
        type=int,
        default=1,
        metavar="K",
        help="answer with the K best boxes for each expression, at most 10 (default: %(default)d)",
    )
    arguments.add_in_flight(parser)
    arguments.add_server(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Raises SystemExit only for --help and wrong usage."""
    parser = build_parser()
    return arguments.run(parser, lambda args: _run(args, parser), argv)


def _run(args: argparse.Namespace, parser: arguments.Parser) -> int:
    patterns, expressions = _split(args.words)
    if not expressions:
        parser.error("EXPRESSION is missing: say what to look for")
    if args.attention and args.save is None:
        parser.error("--attention is drawn into a picture: give --save too")
    images = [image for pattern in patterns for image in _matching(pattern)]
    alone = images == args.words[:1]
    targets = _targets(images, args.save, alone)
    # Ctrl-C ends the reading of a pipe that nobody writes to only in this thread.
    questions = ((file_bytes(image) if alone or _is_pipe(image) else image, expressions) for image in images)
    table = _Table([] if alone else images, expressions)
    quiet = alone or sys.stdout.isatty()  # the answers themselves show how far it is
    status, said = arguments.OK, ""
    with arguments.connect(args) as client, Progress(0 if quiet else len(images)) as progress:
        outcomes = client.ground_many(questions, args.in_flight, args.attention, args.top_k, return_errors=True)
        for image, target, outcome in zip(images, targets, outcomes, strict=True):
            if isinstance(outcome, Refused) and not alone:
                progress.clear()
                status = arguments.say(parser.prog, f"{image}: {outcome}", arguments.BAD_INPUT)
            elif isinstance(outcome, GroundingError):
                raise outcome
            else:
                print(json.dumps(document(image, outcome)) if args.json else table.rows(image, outcome), flush=True)
                if target is not None:
                    _save(outcome, target)
                said = unknown(outcome)  # the same for every image, whose expressions are the same
            progress.advance()
    if said:
        arguments.say(parser.prog, _printable(said), status)
    return status


def document(image: str, answers: Answers) -> dict[str, Any]:
    """The answers about an image as JSON holds them."""
    return {"image": image, "milliseconds": round(answers.seconds * 1e3, 3), "groundings": groundings(answers)}


def groundings(answers: Answers) -> list[dict[str, Any]]:
    """Each answer as JSON holds it."""
    return [_grounding(one) for one in answers]


def unknown(answers: Iterable[Grounding]) -> str:
    """The words that the network does not know in a sentence; empty if it knows all."""
    words = dict.fromkeys(word for one in answers for word in one.unknown)
    return f"the network does not know: {', '.join(words)}" if words else ""


def there(one: Grounding) -> str:
    """How probable it is that the thing is in the picture, as tables show it; empty if nobody knows."""
    return "" if one.presence is None else f"{one.presence:.0%}"


def _grounding(one: Grounding) -> dict[str, Any]:
    presence = None if one.presence is None else round(one.presence, 6)
    record = {"expression": one.expression, **_box(one), "presence": presence, "found": one.found}
    if one.unknown:
        record["unknown"] = list(one.unknown)
    if one.others:
        record["others"] = [_box(other) for other in one.others]
    return record


def _box(candidate: Grounding | Candidate) -> dict[str, Any]:
    return {"box": [round(side, 3) for side in candidate.box], "score": round(candidate.score, 6)}


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Images and expressions."""
    end = 1
    while end < len(words) and words[end].lower().endswith(SUFFIXES):
        end += 1
    return words[:end], words[end:]


def _matching(pattern: str) -> list[str]:
    """The files that a pattern means, in the order of their names; what is no pattern means itself."""
    if os.path.isdir(pattern):
        raise Refused(f"{pattern!r} is a folder: ask about its pictures, as in '{Path(pattern) / '*.jpg'}'")
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    matching = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    if not matching:
        raise Refused(f"no file matches {pattern!r}")
    return matching


def _is_pipe(image: str) -> bool:
    """Or a terminal, or another device."""
    return os.path.exists(image) and not os.path.isfile(image)


def _targets(images: list[str], save: Path | None, alone: bool) -> list[Path | None]:
    """Where each picture is saved. Raises Refused, before anything is asked, if it cannot be."""
    if save is None:
        return [None] * len(images)
    if alone and save.suffix.lower() in draw.FORMATS and not save.is_dir():
        arguments.writable_file(save)
        targets = [save]
    else:
        if not save.is_dir():
            if save.suffix or os.path.lexists(save):
                raise Refused(_no_place(save, alone))
            arguments.writable_folder(save.parent)
            save.mkdir()
        arguments.writable_folder(save)
        targets = [save / _drawn_name(Path(image)) for image in images]
    taken: dict[Path, str] = {}
    for image, target in zip(images, targets, strict=True):
        if taken.setdefault(target, image) != image:
            raise Refused(f"{taken[target]} and {image} would both be saved as {target}: ask in two goes")
        if target.exists() and Path(image).exists() and target.samefile(image):
            raise Refused(f"--save {save} would overwrite the image itself: give another name")
    return list(targets)


def _no_place(save: Path, alone: bool) -> str:
    if alone:
        return f"expected --save with a folder or a name ending in {', '.join(draw.FORMATS)}, got {str(save)!r}"
    return f"--save {save} is one file for several images: give a folder"


def _drawn_name(image: Path) -> str:
    return image.name if image.suffix.lower() in draw.FORMATS else f"{image.name}.png"


def _save(answers: Answers, path: Path) -> None:
    image = answers[0].image
    assert image is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its size or EXIF data, which the server has accepted
            draw.save(draw.draw(image, answers), path)
    except UnidentifiedImageError:
        raise Refused(f"cannot save the picture to {path}: Pillow does not know the kind of file it came in") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Refused(f"cannot save the picture to {path}: {getattr(error, 'strerror', None) or error}") from None


class _Table:
    """Aligned columns: the image if there are several, expression, score, whether it is there, x1 y1 x2 y2."""

    def __init__(self, images: list[str], expressions: list[str]) -> None:
        """What will stand in the first columns, so that rows can be printed as they come."""
        self._with_image = bool(images)
        self._image = max(map(_cells, ["image", *map(_printable, images)]))
        self._expression = max(map(_cells, ["expression", *map(_printable, expressions)]))
        self._head: tuple[str, ...] | None = ("image", "expression", "score", "there", "x1", "y1", "x2", "y2")

    def rows(self, image: str, answers: Answers) -> str:
        """A line for each answer and each box that might be meant too, and the head of the table before the first."""
        name, rows = _printable(image), []
        for g in answers:
            rows.append((name, _printable(g.expression), f"{g.score:.3f}", there(g), *_sides(g.box)))
            rows += [(name, "  or", f"{other.score:.3f}", "", *_sides(other.box)) for other in g.others]
        lines = [self._line(row) for row in ([self._head, *rows] if self._head else rows)]
        self._head = None
        return "\n".join(lines)

    def _line(self, row: Sequence[str]) -> str:
        image, expression, *numbers = row
        columns = [_padded(image, self._image)] if self._with_image else []
        columns += [_padded(expression, self._expression), *map(str.rjust, numbers, _WIDTHS)]
        return "  ".join(columns)


def _sides(box: Box) -> tuple[str, ...]:
    return tuple(f"{side:.1f}" for side in box)


def _printable(text: str) -> str:
    """`text` with what would move a terminal's cursor written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _padded(text: str, cells: int) -> str:
    return text + " " * (cells - _cells(text))


def _cells(text: str) -> int:
    """Columns that `text` takes in a terminal: two for each wide letter, none for a combining mark."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)

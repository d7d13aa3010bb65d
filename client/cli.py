"""The command line: `python -m client IMAGE EXPRESSION...`, answers on stdout, one line on stderr if it fails."""

import argparse
import json
import os
import sys
import tempfile
import time
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

# Read by gRPC when it is imported; else it writes lines of its own whenever a server goes away.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from client import draw
from client.errors import GroundingError, Refused
from client.library import DEFAULT_TIMEOUT, DEFAULT_URL, Client, Grounding, check_address
from client.pictures import file_bytes

OK, FAILED, BAD_INPUT = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"client: {message} (see `python -m client --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """All arguments of the command."""
    parser = _Parser(
        prog="python -m client",
        description="Find the thing that each expression names, by asking a running server.",
        epilog="Exit status: 0 answered, 1 the server is unreachable, late or broken, 2 wrong usage or input.",
    )
    parser.add_argument("image", metavar="IMAGE", help="image file (JPEG, PNG, WEBP or GIF)")
    parser.add_argument("expressions", metavar="EXPRESSION", nargs="+", help='what to find, such as "the red car"')
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--save", metavar="OUT", type=_picture_path, help="write the picture with the boxes drawn")
    parser.add_argument(
        "--url", metavar="HOST:PORT", type=_address, default=DEFAULT_URL, help="the server's gRPC address (%(default)s)"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=DEFAULT_TIMEOUT, help="longest wait (%(default)g)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Raises SystemExit only for --help and wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without the letters of an expression
    args = build_parser().parse_args(argv)
    try:
        _run(args)
    except Refused as error:
        return _say(str(error), BAD_INPUT)
    except GroundingError as error:
        return _say(str(error), FAILED)
    except KeyboardInterrupt:
        return _say("stopped", 130)
    except BrokenPipeError:
        # Whoever read the output left; the interpreter must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # a person at a terminal gets one line, whatever broke
        return _say(f"unexpected {type(error).__name__}: {error}", FAILED)
    return OK


def _run(args: argparse.Namespace) -> None:
    data = file_bytes(args.image)
    if args.save is not None and args.save.exists() and args.save.samefile(args.image):
        raise Refused(f"--save {args.save} would overwrite the image itself: give another name")
    start = time.perf_counter()
    with Client(args.url, args.timeout) as client:
        groundings = client.ground(data, args.expressions)
    milliseconds = (time.perf_counter() - start) * 1e3
    print(_json(args.image, groundings, milliseconds) if args.json else _table(groundings), flush=True)
    if args.save is not None:
        _save(data, groundings, args.save)


def _say(message: str, status: int) -> int:
    print(f"client: {' '.join(message.split())}", file=sys.stderr)
    return status


def _address(text: str) -> str:
    try:
        return check_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return value


def _picture_path(text: str) -> Path:
    """A path that a picture can be written to, found out before the server is asked."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: give a file name")
    if path.suffix.lower() not in draw.FORMATS:
        raise argparse.ArgumentTypeError(f"expected a name ending in {', '.join(draw.FORMATS)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no folder {path.parent}: make it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write into {path.parent}: {error.strerror}") from None
    return path


def _save(data: bytes, groundings: list[Grounding], path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the server has accepted this size
            draw.save(draw.draw(data, groundings), path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Refused(f"cannot save the picture to {path}: {getattr(error, 'strerror', None) or error}") from None


def _json(image: str, groundings: list[Grounding], milliseconds: float) -> str:
    answers = [
        {"expression": g.expression, "box": [round(v, 3) for v in g.box], "score": round(g.score, 6)}
        for g in groundings
    ]
    return json.dumps({"image": image, "milliseconds": round(milliseconds, 3), "groundings": answers})


def _table(groundings: list[Grounding]) -> str:
    """Aligned columns: expression, score, x1 y1 x2 y2."""
    rows = [["expression", "score", "x1", "y1", "x2", "y2"]]
    rows += [[_printable(g.expression), f"{g.score:.3f}", *(f"{v:.1f}" for v in g.box)] for g in groundings]
    first, *others = (max(map(_cells, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        "  ".join([text + " " * (first - _cells(text)), *map(str.rjust, numbers, others)]) for text, *numbers in rows
    )


def _printable(text: str) -> str:
    """`text` with what would move a terminal's cursor written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _cells(text: str) -> int:
    """Columns that `text` takes in a terminal: two for each wide letter, none for a combining mark."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)

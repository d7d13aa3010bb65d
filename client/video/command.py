"""`python -m client.video FILE|CAMERA EXPRESSION...`: where the things are, frame after frame.

A file is played at its own speed, as a camera would show it (slower if drawing and writing take longer); of a camera
the newest frame is taken. A frame is asked about if the server keeps up, and passed over if not. With --save every
frame is written, those that were passed over too, with the answer drawn into it that was the newest one at its time: so
what is written of a file is as long as the file and has its rate. Without, each answer is a line of JSON as soon as it
comes.
"""

import argparse
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from PIL import Image

from client import arguments, draw
from client.cli import groundings
from client.errors import GroundingError, Refused
from client.progress import Progress
from client.video.asking import Answered, Asking
from client.video.film import SUFFIXES, Film
from client.video.source import Frame, Source, open_source

IN_FLIGHT = 2  # while one is answered the next is on its way; more of them would only grow old in the server's queue


def build_parser() -> arguments.Parser:
    """All arguments of the command."""
    parser = arguments.Parser(
        prog="python -m client.video",
        description="Find the thing that each expression names in a video file, played at its own speed, or in what a "
        "camera sees. A frame that comes while the server is busy is not asked about.",
        epilog="Each line on stdout is JSON: one for each answer as it comes (unless with --save), with the frame's "
        "time in seconds and boxes in pixels of the upright frame; last, at the end or after Ctrl-C, the report. "
        f"{arguments.EXIT_CODES}",
    )
    parser.add_argument(
        "source",
        metavar="FILE|CAMERA",
        help="a video file; a camera's number, device (/dev/video0) or address (rtsp://HOST/PATH, http://HOST/PATH)",
    )
    parser.add_argument("expressions", metavar="EXPRESSION", nargs="+", help='what to find, such as "the red car"')
    parser.add_argument(
        "--save",
        metavar="OUT.mp4",
        type=Path,
        help="write a video, without sound, of every frame with the newest answer of its time drawn into it: as long "
        "as FILE and of its rate, whatever the server keeps up with",
    )
    arguments.add_in_flight(parser, IN_FLIGHT)
    arguments.add_server(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Raises SystemExit only for --help and wrong usage."""
    parser = build_parser()
    return arguments.run(parser, lambda args: _run(args, parser.prog), argv)


def _run(args: argparse.Namespace, command: str) -> int:
    with open_source(args.source) as source:
        if args.save is not None:
            arguments.writable_file(args.save, SUFFIXES)
            if args.save.exists() and Path(source.name).exists() and args.save.samefile(source.name):
                raise Refused(f"--save {args.save} would overwrite the video itself: give another name")
        with arguments.connect(args) as client:
            asking = Asking(client, args.expressions, args.in_flight, _print if args.save is None else _pass)
            return _follow(source, asking, args.save, command)


def _follow(source: Source, asking: Asking, save: Path | None, command: str) -> int:
    stop = threading.Event()
    frames = source.frames(stop)
    first = next(frames, None)
    if first is None:
        raise Refused(f"{source.name!r} has no frame that can be read")
    asking.offer(first)
    asking.finish()  # nothing is written before a server has answered, and no frame is without an answer
    with contextlib.nullcontext() if save is None else Film(save, source.rate) as film:
        message, status = "", arguments.OK
        try:
            with _set_by_ctrl_c(stop), _progress(source, film) as progress:
                _play(chain([first], frames), asking, film, progress)
            asking.finish()
            if stop.is_set():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            message, status = "stopped", arguments.STOPPED
        except GroundingError as error:
            refused = isinstance(error, Refused)
            message, status = str(error), arguments.BAD_INPUT if refused else arguments.FAILED
        print(json.dumps(asking.report()), flush=True)
        if message:
            kept = f" ({film.frames} frames are in {film.path})" if film is not None and film.finished else ""
            arguments.say(command, message + kept, status)
        return status


def _play(frames: Iterable[Frame], asking: Asking, film: Film | None, progress: Progress) -> None:
    """Offer all frames but the first, which is answered; whatever ends it, the film is whole."""
    try:
        for n, frame in enumerate(frames):
            if n > 0:
                asking.offer(frame)
            if film is not None:
                film.write(_drawn(frame, asking), frame.seconds)
            progress.advance()
    finally:
        if film is not None:
            film.finish()


def _drawn(frame: Frame, asking: Asking) -> Image.Image:
    assert asking.newest is not None
    return draw.draw(frame.image, asking.newest.answers, f"{asking.rate():.1f} answers/s")


def _progress(source: Source, film: Film | None) -> Progress:
    answers_are_seen = film is None and sys.stdout.isatty()
    return Progress(0 if answers_are_seen else source.length)


def _print(answered: Answered) -> None:
    document = {
        "frame": answered.frame.number,
        "time": round(answered.frame.seconds, 3),
        "milliseconds": round(answered.latency * 1e3, 3),
        "groundings": groundings(answered.answers),
    }
    print(json.dumps(document), flush=True)


def _pass(_answered: Answered) -> None:
    """With --save the answers are in the video."""


@contextlib.contextmanager
def _set_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C sets `stop`, instead of breaking into what is being written."""
    former = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)

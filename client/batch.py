"""`python -m client.batch QUESTIONS ANSWERS`: a file of questions, one JSON object a line, into a file of answers.

Answers are in the order of the questions and written as they come, so a run that was stopped goes on where it was. A
server that restarts or has too much to do is waited for.
"""

import argparse
import contextlib
import fcntl
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import arguments
from client.answers import Answers
from client.cli import document
from client.errors import GroundingError, Refused
from client.library import Client
from client.progress import Progress
from client.retry import PATIENCE

PAUSE = 1.0  # seconds between questions to one that does not answer
FORM = '{"image": PATH, "expressions": [TEXT, ...]}'


@dataclass(frozen=True)
class Asked:
    """One line of the questions."""

    image: str
    expressions: tuple[str, ...]


def build_parser() -> arguments.Parser:
    """All arguments of the command."""
    parser = arguments.Parser(
        prog="python -m client.batch",
        description="Answer a file of questions. Run again after a stop, it goes on where it was.",
        epilog=f"Each line of QUESTIONS is {FORM}; empty ones are passed over. Each of ANSWERS is what "
        f'`python -m client --json` prints, or has an "error" that says why it was refused. {arguments.EXIT_CODES}',
    )
    parser.add_argument(
        "questions", metavar="QUESTIONS", type=Path, help="file of questions, a JSON object on each line"
    )
    parser.add_argument(
        "answers",
        metavar="ANSWERS",
        type=Path,
        help="file for the answers, in the order of the questions, a JSON object on each line",
    )
    arguments.add_in_flight(parser)
    arguments.add_server(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Raises SystemExit only for --help and wrong usage."""
    parser = build_parser()
    return arguments.run(parser, lambda args: _run(args, parser.prog), argv)


def _run(args: argparse.Namespace, command: str) -> int:
    questions = read_questions(args.questions)
    arguments.writable_file(args.answers)
    if args.answers.exists() and not args.answers.is_file():
        raise Refused(f"{args.answers} is a pipe or a device: give a file name")  # a later run would read it
    if args.answers.exists() and args.answers.samefile(args.questions):
        raise Refused("the answers would overwrite the questions: give another name")
    with arguments.connect(args) as client, _claimed(args.answers):
        done = _resume(args.answers, questions)
        try:
            with args.answers.open("a", encoding="utf-8") as file:
                for answer in _answered(client, questions[len(done) :], args.in_flight):
                    file.write(json.dumps(answer) + "\n")
                    file.flush()
                    done.append(answer)
        except (GroundingError, OSError, KeyboardInterrupt) as error:
            stopped = isinstance(error, KeyboardInterrupt)
            kept = f"{len(done)} of {len(questions)} are in {args.answers}; the same command goes on from there"
            status = arguments.STOPPED if stopped else arguments.FAILED
            return arguments.say(command, f"{'stopped' if stopped else error} ({kept})", status)
    if refused := sum("error" in answer for answer in done):
        message = f'{refused} of {len(done)} were refused: "error" in {args.answers} says why'
        return arguments.say(command, message, arguments.BAD_INPUT)
    return arguments.OK


def read_questions(path: Path) -> list[Asked]:
    """All questions of a file. Raises Refused, with the line's number, for a line that is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON may hold what else counts as a line's end
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Refused(f"cannot read {path}: it is not text in UTF-8") from None
    questions = [_question(line, f"{path} line {n}") for n, line in enumerate(lines, start=1) if line.strip()]
    if not questions:
        raise Refused(f"{path} holds no question: each line is {FORM}")
    return questions


def _question(line: str, where: str) -> Asked:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # the last of deep nesting
        raise Refused(f"{where} is not JSON ({error}): expected {FORM}") from None
    fields = record if isinstance(record, dict) else {}
    image, expressions = fields.get("image"), fields.get("expressions")
    if not isinstance(image, str) or not isinstance(expressions, list) or not expressions:
        raise Refused(f"{where}: expected {FORM}, got {line[:80]}")
    if not all(isinstance(expression, str) for expression in expressions):
        raise Refused(f"{where}: expressions are texts, got {json.dumps(expressions)[:80]}")
    return Asked(image, tuple(expressions))


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Keep the answers from a second run, which would write the same ones; the file is made for that.

    Raises Refused. The lock ends with its process; on a file system without locks nobody is kept away.
    """
    try:
        file = path.open("a")
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another run writes {path}: wait for its end, or give another name") from None
        except OSError:
            pass
        yield


def _resume(path: Path, questions: list[Asked]) -> list[dict[str, Any]]:
    """The answers that are there already; half a line at the end, of a run that was killed, is cut off."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    try:
        done = [json.loads(line) for line in whole.splitlines()]
        answered = [_asked(answer) for answer in done]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused(f"{path} is there and holds no answers: give another name") from None
    if answered != questions[: len(answered)]:
        raise Refused(f"{path} is there and answers other questions: give another name or remove it")
    if half := data[len(whole) :]:
        following = questions[len(done) : len(done) + 1]
        begun = [json.dumps({"image": question.image})[:-1].encode() for question in following]
        if not any(half.startswith(begin[: len(half)]) for begin in begun):
            raise Refused(f"{path} is there and ends in something that is no answer: give another name")
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return done


def _asked(answer: dict[str, Any]) -> Asked:
    """What an answer was asked."""
    expressions = answer["expressions"] if "error" in answer else [g["expression"] for g in answer["groundings"]]
    return Asked(answer["image"], tuple(expressions))


def _answered(client: Client, questions: list[Asked], in_flight: int) -> Iterator[dict[str, Any]]:
    """An answer or a refusal for each question. Raises what keeps the server from answering any."""
    pairs = ((question.image, question.expressions) for question in questions)
    deadline = 0.0  # of a server that has never answered nobody knows whether it is one
    with Progress(len(questions)) as progress:
        outcomes = client.ground_many(pairs, in_flight, return_errors=True)
        for question, outcome in zip(questions, outcomes, strict=True):
            while isinstance(outcome, GroundingError) and outcome.may_pass and time.monotonic() < deadline:
                time.sleep(PAUSE)
                outcome = _ask_again(client, question)
            if isinstance(outcome, Refused):
                yield {"image": question.image, "expressions": question.expressions, "error": str(outcome)}
            elif isinstance(outcome, GroundingError):
                raise outcome
            else:
                deadline = time.monotonic() + PATIENCE
                yield document(question.image, outcome)
            progress.advance()


def _ask_again(client: Client, question: Asked) -> Answers | GroundingError:
    try:
        return client.ground(question.image, question.expressions)
    except GroundingError as error:
        return error


if __name__ == "__main__":
    sys.exit(main())

"""What the commands of the client share: arguments about the server, exit codes, one line for whatever goes wrong."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

# Read by gRPC when it is imported; else it writes lines of its own whenever a server goes away.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from client.errors import GroundingError, Refused
from client.library import DEFAULT_IN_FLIGHT, DEFAULT_MODEL, DEFAULT_TIMEOUT, DEFAULT_URL, Client, Tls, check_timeout

OK, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130
EXIT_CODES = (
    "Exit status: 0 answered, 1 the server is unreachable, late or broken, 2 wrong usage or input, 130 stopped."
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, named after the command: `python -m client: ...`."""

    def error(self, message: str) -> NoReturn:
        """Exit with BAD_INPUT."""
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def add_server(parser: argparse.ArgumentParser) -> None:
    """The arguments that `connect` reads."""
    parser.add_argument(
        "--url",
        default=DEFAULT_URL,
        help="address of the server: HOST:PORT or grpc://HOST:PORT for gRPC, http://HOST:PORT for HTTP, with grpcs:// "
        "or https:// encrypted (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive,
        default=DEFAULT_TIMEOUT,
        help="longest wait for an answer (default: %(default)g)",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        default=DEFAULT_MODEL,
        help="model of the server to ask, such as gin_int8 (default: %(default)s)",
    )
    tls = parser.add_argument_group("encrypted connections", "files in PEM form, for grpcs:// and https://")
    tls.add_argument(
        "--ca", metavar="FILE", help="certificates of the authorities to trust (default: the well-known ones)"
    )
    tls.add_argument(
        "--certificate", metavar="FILE", help="certificate of this client, for a server that wants to know who asks"
    )
    tls.add_argument("--key", metavar="FILE", help="private key of the client's certificate, without a passphrase")


def add_in_flight(parser: argparse.ArgumentParser, default: int = DEFAULT_IN_FLIGHT) -> None:
    """How many questions are asked at once."""
    parser.add_argument(
        "--in-flight",
        metavar="N",
        type=count,
        default=default,
        help="how many questions are asked at once (default: %(default)d)",
    )


def connect(args: argparse.Namespace) -> Client:
    """The client that the arguments describe. Raises Refused if they do not make sense."""
    files = (args.ca, args.certificate, args.key)
    try:
        return Client(args.url, args.timeout, Tls(*files) if any(files) else None, model=args.model)
    except ValueError as error:
        raise Refused(str(error)) from None


def run(parser: Parser, action: Callable[[argparse.Namespace], int], argv: Sequence[str] | None) -> int:
    """Parse and act; returns the exit code. Raises SystemExit only for --help and wrong usage."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # None if the shell has closed it
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without the letters of an expression
    args = parser.parse_intermixed_args(argv)
    try:
        return action(args)
    except Refused as error:
        return say(parser.prog, str(error), BAD_INPUT)
    except GroundingError as error:
        return say(parser.prog, str(error), FAILED)
    except KeyboardInterrupt:
        return say(parser.prog, "stopped", STOPPED)
    except BrokenPipeError:
        # Whoever read the output left; the interpreter must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # a person at a terminal gets one line, whatever broke
        return say(parser.prog, f"unexpected {type(error).__name__}: {error}", FAILED)


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def say(command: str, message: str, status: int) -> int:
    """One line on stderr; returns `status`."""
    print(f"{command}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return status


def positive(text: str) -> float:
    """A number of seconds."""
    try:
        return check_timeout(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number of seconds above 0 and below a day, got {text!r}"
        ) from None


def count(text: str) -> int:
    """A whole number from 1 to 256."""
    value = int(text) if text.isdecimal() else 0
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 256, got {text!r}")
    return value


def writable_file(path: Path, suffixes: Iterable[str] | None = None) -> None:
    """Raises Refused unless a file can be written there, before the server is asked."""
    if path.is_dir():
        raise Refused(f"{path} is a folder: give a file name")
    if suffixes is not None and path.suffix.lower() not in suffixes:
        raise Refused(f"expected a name ending in {', '.join(suffixes)}, got {str(path)!r}")
    writable_folder(path.parent)


def writable_folder(path: Path) -> None:
    """Raises Refused unless files can be written into `path`."""
    if not path.is_dir():
        raise Refused(f"no folder {path}: make it first")
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Refused(f"cannot write into {path}: {error.strerror}") from None

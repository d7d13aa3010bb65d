"""`python -m serve`: a Triton server on the model repository, until Ctrl-C."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from serve.repository import DEFAULT, SERVED, RepositoryError
from serve.server import PortInUse, Server, ServerError
from serve.triton import TritonMissing

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a closed terminal


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End the server, once: a second Ctrl-C must not interrupt the cleaning up."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serve", description="Serve the model repository with Triton.")
    parser.add_argument("--repository", type=Path, default=DEFAULT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="IPv4 address (default: %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=8001, metavar="P", help="default: %(default)s; 0 picks one")
    parser.add_argument("--http-port", type=int, default=8000, metavar="P", help="default: %(default)s")
    parser.add_argument("--metrics-port", type=int, default=8002, metavar="P", help="default: %(default)s")
    parser.add_argument("--verbose", action="store_true", help="show the server's log")
    arguments = parser.parse_args(argv)
    for name in ("grpc_port", "http_port", "metrics_port"):
        if not 0 <= getattr(arguments, name) <= 65_535:
            parser.error(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; ports are 0 to 65535")
    for number in _STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored: started by nohup
            signal.signal(number, _stop)
    try:
        with Server(**vars(arguments)) as server:
            for name, reason in server.selection.skipped.items():
                print(f"not loaded: {name}: {reason}", file=sys.stderr)
            print(
                f"ready: model {SERVED} at grpc://{server.address}:{server.grpc_port}, "
                f"http://{server.address}:{server.http_port}, "
                f"metrics http://{server.address}:{server.metrics_port}/metrics (Ctrl-C stops)",
                flush=True,
            )
            server.wait()
    except KeyboardInterrupt:
        return 0
    except (RepositoryError, TritonMissing, PortInUse) as error:
        print(f"python -m serve: {error}", file=sys.stderr)
        return 2
    except ServerError as error:
        print(f"python -m serve: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m serve.probe`: whether a server answered its last health question, as an exit code for containers."""

import argparse
import sys
from collections.abc import Sequence
from http.client import HTTPException

from serve.question import DIRECT


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 if it did, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.probe", description="Ask `python -m serve` whether it is ready."
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="where it runs (default: %(default)s)")
    port = "its own --health-port (default: %(default)s)"
    parser.add_argument("--health-port", type=int, default=8003, metavar="P", help=port)
    live = "ask whether it is still worth waiting for (if not, start it anew), rather than whether it is ready"
    parser.add_argument("--live", action="store_true", help=live)
    arguments = parser.parse_args(argv)
    url = f"http://{arguments.host}:{arguments.health_port}/{'live' if arguments.live else 'ready'}"
    try:
        with DIRECT.open(url, timeout=5) as response:
            print(response.read().decode().strip())
            return 0
    except (OSError, HTTPException, UnicodeError) as error:  # the last of a name that is none
        text = error.read().decode().strip() if hasattr(error, "read") else str(getattr(error, "reason", error))
        text = "it does not speak HTTP" if isinstance(error, HTTPException) else text
        print(f"python -m serve.probe: {text}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""What an export is doing, for whoever watches."""

import sys


def say(step: str) -> None:
    """Name a step that takes a while, where stderr is a terminal."""
    if sys.stderr.isatty():
        print(f"{step} ...", file=sys.stderr, flush=True)

"""How the commands of training end."""

import sys
from collections.abc import Callable


def run_command(name: str, work: Callable[[], int]) -> int:
    """The exit code that the work returns; with one line, 2 for what the user can mend and 130 for Ctrl-C."""
    try:
        return work()
    except (OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130

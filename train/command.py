"""How the commands of training end."""

import sys
from collections.abc import Callable


def run_command(name: str, work: Callable[[], int]) -> int:
    """The exit code that the work returns; with one line, 2 for what the user can mend and 130 for Ctrl-C."""
    try:
        return work()
    except (OSError, ValueError) as error:
        print(f"{name}: {spoken(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def spoken(error: Exception) -> str:
    """An error for the screen: the system's without their numbers."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.filename is None:
        return error.strerror
    if isinstance(error, FileNotFoundError):
        return f"no file {str(error.filename)!r}"
    return f"{error.filename}: {error.strerror}"

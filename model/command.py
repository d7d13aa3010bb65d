"""How commands end."""

import sys
from collections.abc import Callable


def run_command(name: str, work: Callable[[], int | None], *failures: type[Exception]) -> int:
    """The exit code that the work returns (None: 0); with one line on stderr, 1 for `failures`, 2 for what the user can
    mend, which is any other OSError or ValueError, and 130 for Ctrl-C."""
    caught: tuple[type[Exception], ...] = (OSError, ValueError, *failures)
    try:
        return work() or 0
    except caught as error:
        print(f"{name}: {spoken(error)}", file=sys.stderr)
        return 1 if isinstance(error, failures) else 2
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

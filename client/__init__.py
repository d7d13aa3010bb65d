"""Ask a running GIN server where the thing is that a sentence names.

    from client import Client

    with Client("127.0.0.1:8001") as client:
        for found in client.ground("street.jpg", ["the red car", "the man on the left"]):
            print(found.expression, found.score, found.box)

`client.draw` puts the answers into the picture; `python -m client --help` does all of it from a terminal.
The package needs tritonclient, NumPy and Pillow only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.library import DEFAULT_TIMEOUT, DEFAULT_URL, Client, Grounding

from client.errors import GroundingError, Refused, ServerFailed, TimedOut, Unreachable

__all__ = [
    "DEFAULT_TIMEOUT",
    "DEFAULT_URL",
    "Client",
    "Grounding",
    "GroundingError",
    "Refused",
    "ServerFailed",
    "TimedOut",
    "Unreachable",
]


def __getattr__(name: str) -> Any:
    """Import gRPC at the first use only: the command line has to silence gRPC's own messages before that."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from client import library

    return getattr(library, name)

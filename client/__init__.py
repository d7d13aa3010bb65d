"""Ask a running GIN server where the thing is that a sentence names.

    from client import Client

    with Client("127.0.0.1:8001") as client:
        for found in client.ground("street.jpg", ["the red car", "the man on the left"]):
            print(found.expression, found.score, found.box)

`AsyncClient` does the same for asyncio, `client.draw` puts the answers into the picture, and `python -m client --help`
does all of it from a terminal. The package needs tritonclient, NumPy and Pillow only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.aio import AsyncClient
    from client.library import DEFAULT_MODEL, DEFAULT_TIMEOUT, DEFAULT_URL, Answers, Candidate, Client, Grounding, Tls

from client.errors import Busy, GroundingError, Refused, ServerFailed, TimedOut, Unreachable

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_TIMEOUT",
    "DEFAULT_URL",
    "Answers",
    "AsyncClient",
    "Busy",
    "Candidate",
    "Client",
    "Grounding",
    "GroundingError",
    "Refused",
    "ServerFailed",
    "TimedOut",
    "Tls",
    "Unreachable",
]


def __getattr__(name: str) -> Any:
    """Import gRPC at the first use only: the command line has to silence gRPC's own messages before that."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "AsyncClient":
        from client.aio import AsyncClient

        return AsyncClient
    from client import library

    return getattr(library, name)

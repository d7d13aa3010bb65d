"""What can go wrong when asking a server: one small family of errors, each with a message fit to show to a person."""

import re


class GroundingError(Exception):
    """Any failure to ground. Catch this one to catch them all."""


class Unreachable(GroundingError):
    """No server there, or it is overloaded or going away; asking again later may work."""


class TimedOut(GroundingError):
    """The deadline passed before the answer came."""


class Refused(GroundingError):
    """The image or an expression cannot be used, as the message says; asking again will not help."""


class ServerFailed(GroundingError):
    """The server broke while answering, or answered something that is not a box."""


# What Triton and its Python backend wrap around the cause that a model gave.
_WRAPPING = re.compile(
    r"^(in ensemble '[^']*',\s*"
    r"|Failed to process the request\(s\) for model(?: instance)? '[^']*',?\s*(?:message:\s*)?"
    r"|\[request id: [^\]]*\]\s*"
    r"|[A-Za-z]*(?:Exception|Error):\s*)"
)
# How gRPC words that nobody took the connection, or that the name leads nowhere.
_NO_CONNECTION = ("failed to connect", "connections to all backends failing", "DNS resolution failed", "resolving")


def cause(text: str | None) -> str:
    """The one line of a server's error `text` that says why: without wrappings, traceback and line breaks."""
    line = next((line.strip() for line in (text or "").splitlines() if line.strip()), "no reason given")
    while (shorter := _WRAPPING.sub("", line)) != line and shorter:
        line = shorter
    return line


def from_status(status: str | None, text: str | None, url: str, timeout: float) -> GroundingError:
    """The error for a failed call to `url`: gRPC `status` ("StatusCode.NAME") and `text` in, one of the family out."""
    why = cause(text)
    match (status or "").removeprefix("StatusCode."):
        case "INVALID_ARGUMENT":
            return Refused(why)
        case "RESOURCE_EXHAUSTED":  # Triton itself never answers this: it is gRPC's word for a message over a limit
            return Refused(f"the image is too large to send ({why})")
        case "DEADLINE_EXCEEDED":
            return TimedOut(f"no answer from {url} within {timeout:g} s: see whether it is ready, or allow more time")
        case "UNAVAILABLE" if any(mark in why for mark in _NO_CONNECTION):
            return Unreachable(f"no server at {url}: start one with `python -m serve`, or give another address")
        case "UNAVAILABLE":
            return Unreachable(f"the server at {url} cannot answer now ({why}): try again later")
        case "NOT_FOUND":
            return ServerFailed(f"the server at {url} does not serve this model ({why})")
        case _:
            return ServerFailed(f"the server at {url} failed ({why}): its log says more")

"""What can go wrong when asking a server: one small family of errors, each with a message fit to show to a person."""

import re

# ValueErrors, for they are the caller's mistakes.
CLOSED = "this client is closed"
FORKED = "this client was made before the process was forked: make one in each process"
OTHER_LOOP = "this client has been used in another event loop: make one in each loop"


class GroundingError(Exception):
    """Any failure to ground. Catch this one to catch them all."""

    may_pass = False
    """Whether asking again soon may work; the client has done that already, for less than half a second."""


class Unreachable(GroundingError):
    """No server there, its certificate is not trusted, or the connection broke. Check the address and the server."""

    may_pass = True


class Busy(GroundingError):
    """The server has more to do than it can, or is starting or going away. Ask later, or ask less at once."""

    may_pass = True


class TimedOut(GroundingError):
    """The deadline passed before the answer came. Allow more time, or see whether the server is overloaded."""


class Refused(GroundingError):
    """The image or an expression cannot be used. The message says why; asking again will not help."""


class ServerFailed(GroundingError):
    """The server broke while answering, or answered something that is not a box. Its log says more."""


# What Triton and its Python backend wrap around the cause that a model gave.
_WRAPPING = re.compile(
    r"^(in ensemble '[^']*',\s*"
    r"|Failed to process the request\(s\) for model(?: instance)? '[^']*',?\s*(?:message:\s*)?"
    r"|\[request id: [^\]]*\]\s*"
    r"|[A-Za-z]*(?:Exception|Error):\s*)"
)
# How gRPC words that nobody took the connection, or that the name leads nowhere; the HTTP client here says "failed to
# connect" too. Then, how it words that a connection broke.
_NO_CONNECTION = ("failed to connect", "connections to all backends failing", "DNS resolution failed", "resolving")
_TRY_TLS = "; a server that speaks TLS wants grpcs:// or https:// before it"
_TRY_ANOTHER = "; a port that speaks HTTP or TLS wants http://, grpcs:// or https:// before it"
_MAYBE_NO_TLS = "; if one runs there, see whether it speaks TLS there and whether it asks for a client certificate"
_BROKEN = ("Socket closed", "onnection reset", "Broken pipe", "GOAWAY", "Stream removed", "Transport closed", "EOF")
_RESET = ("Stream removed", "RST_STREAM")  # by a balancer whose server died half-way through an answer; plain INTERNAL
_TLS = ("andshake failed", "Hostname Verification Check failed")
_UNTRUSTED = re.compile(r"certificate[ _]verify[ _]failed: ([^(:]*)", re.IGNORECASE)
_NOT_HEALTHY = "is not healthy"  # Triton's words for "the process of this model is dead"; its status is plain INTERNAL
_OTHER_KIND = "unexpected inference "  # input or output, which the model does not have
_NO_VERSIONS = "has no available versions"  # of a model that Triton is loading, or has let go of because it ends
_NO_REGION = "Unable to find shared memory region"  # of a client that had told the process before it


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
        case "INVALID_ARGUMENT" if why.startswith(_OTHER_KIND):
            return ServerFailed(
                f"the model at {url} is not one that this client can ask ({why}): it takes no pictures with "
                "expressions, as `gin` does, or its configuration is older than this client"
            )
        case "INVALID_ARGUMENT":
            return Refused(why)
        case "RESOURCE_EXHAUSTED":  # Triton itself never answers this: it is gRPC's word for a message over a limit
            return Refused(f"the image is too large to send ({why})")
        case "DEADLINE_EXCEEDED":
            return TimedOut(f"no answer from {url} within {timeout:g} s: see whether it is ready, or allow more time")
        case "UNAVAILABLE":
            return _unavailable(why, url)
        case "NOT_FOUND" if _NO_REGION in why:
            return Busy(f"the server at {url} has started anew meanwhile ({why}): try again")
        case "NOT_FOUND" if _NO_VERSIONS in why:
            return Busy(f"the server at {url} is starting or going away ({why}): try again later")
        case "NOT_FOUND":
            return ServerFailed(f"the server at {url} does not serve this model ({why})")
        case "CANCELLED":  # by the server, whose last calls end so
            return Busy(f"the server at {url} is going away ({why}): try again later")
        case "INTERNAL" | "UNKNOWN" if any(mark in why for mark in _RESET):
            return Unreachable(f"the connection to {url} broke ({why}): the server behind it may have ended")
        case _:
            error = ServerFailed(f"the server at {url} failed ({why}): its log says more")
            error.may_pass = _NOT_HEALTHY in why  # another replica, or the next process, may answer
            return error


def _unavailable(why: str, url: str) -> GroundingError:
    encrypted = url.startswith(("grpcs://", "https://"))
    if encrypted and any(mark in why for mark in _TLS):
        untrusted = _UNTRUSTED.search(why)
        reason = untrusted[1].strip(" .") if untrusted else "the handshake failed"
        return Unreachable(
            f"no trusted connection to {url} ({reason}): see that the authority given signed the server's certificate, "
            "that the address has the name in it, and that the server speaks TLS there"
        )
    hint = _MAYBE_NO_TLS if encrypted else _TRY_TLS if url.startswith("http://") else _TRY_ANOTHER
    if any(mark in why for mark in _NO_CONNECTION):
        return Unreachable(f"no server at {url}: start one with `python -m serve`, or give another address{hint}")
    if any(mark in why for mark in _BROKEN):
        return Unreachable(f"the connection to {url} broke ({why}): see whether a server runs there{hint}")
    return Busy(f"the server at {url} cannot answer now ({why}): try again later")

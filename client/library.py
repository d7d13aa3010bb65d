"""The library: `Client` asks a Triton server that serves `gin`, over gRPC."""

import json
import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from client.errors import GroundingError, Refused, ServerFailed, TimedOut, Unreachable, from_status
from client.pictures import MAX_BYTES, Array, ImageLike, file_bytes

MODEL = "gin"
DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT = 10.0

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})")
_NOT_HEALTHY = "is not healthy"  # Triton's words for "the process of this model is dead"; its status is plain INTERNAL

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # When most calls fail, stop retrying: retries of every client at once would keep an overloaded server down.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    # A name with several addresses is several replicas: spread over them, and go round the one that is down.
    "loadBalancingConfig": [{"round_robin": {}}],
}

# tritonclient drops all its own channel arguments when given any, so this list is complete.
_CHANNEL_ARGS: list[tuple[str, int | str]] = [
    ("grpc.max_send_message_length", MAX_BYTES),
    ("grpc.max_receive_message_length", MAX_BYTES),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # gRPC keeps only 256 KiB for retries by default and, for larger messages, silently never retries.
    ("grpc.per_rpc_retry_buffer_size", MAX_BYTES + 2**20),
    # Triton hangs up on clients that ping more often than every 300 s. The timeout is also how long sent data may
    # stay unacknowledged before the connection counts as dead.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # By default up to two minutes pass before a server that came back is noticed, for all clients of a process.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    # A web proxy named in the environment does not lead to a model server, least of all to one on this machine.
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True)
class Grounding:
    """The answer to one expression."""

    expression: str
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the upright image (EXIF orientation applied), clipped to it."""
    score: float
    attention: Array | None = field(default=None, compare=False, repr=False)
    """(h, w) float32: where the network looked, a grid over the image as the network saw it; None unless asked for."""


def check_address(url: str) -> str:
    """`url` itself if it is HOST:PORT or a gRPC target such as dns:///HOST:PORT; else ValueError."""
    if url.startswith(("dns:", "ipv4:", "ipv6:", "unix:")):
        return url
    match = _ADDRESS.fullmatch(url)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError(f"expected an address as HOST:PORT, such as {DEFAULT_URL}, got {url!r}")
    return url


class Client:
    """A connection to one server (or to the replicas behind one name); threads may share it.

    Every call ends within `timeout` seconds of sending. Calls that find the server unavailable are tried up to three
    times within that time. Nothing is sent before the first call, so making a client never fails for lack of a server.

    Raises ValueError for an address that is not HOST:PORT or a timeout that is not a positive number.
    """

    def __init__(self, url: str = DEFAULT_URL, timeout: float = DEFAULT_TIMEOUT) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"expected a timeout in seconds above 0, got {timeout}")
        self.url = check_address(url)
        self.timeout = timeout
        self._triton = triton.InferenceServerClient(url, channel_args=_CHANNEL_ARGS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; later calls raise ValueError."""
        self._triton.close()

    def ready(self) -> bool:
        """Whether the server is there and ready to ground. False, not an error, when it is not there."""
        try:
            return bool(self._triton.is_model_ready(MODEL, client_timeout=self.timeout))
        except InferenceServerException as error:
            failure = self._failure(error)
            if isinstance(failure, Unreachable | TimedOut) or "NOT_FOUND" in str(error.status()):
                return False
            raise failure from None

    def ground(self, image: ImageLike, expressions: str | Iterable[str], attention: bool = False) -> list[Grounding]:
        """The thing that each expression names, in the order of `expressions` (one string is a list of one).

        `image` is a path, the bytes of an image file, a Pillow image, or uint8 pixels (H, W, 3) in RGB order or
        (H, W); see client.pictures. With `attention`, each answer also carries its attention map.
        Raises a GroundingError: Refused for bad input, Unreachable, TimedOut or ServerFailed otherwise.
        """
        asked = [expressions] if isinstance(expressions, str) else list(expressions)
        names = ["BOX", "SCORE", "ATTENTION"] if attention else ["BOX", "SCORE"]
        inputs = [_bytes_input("IMAGE", [file_bytes(image)]), _bytes_input("EXPRESSION", _encoded(asked))]
        result = self._infer(inputs, [triton.InferRequestedOutput(name) for name in names])
        box, score, maps = _checked(result, len(asked), attention)
        return [
            Grounding(expression, _corners(box[n]), float(score[n]), None if maps is None else maps[n])
            for n, expression in enumerate(asked)
        ]

    def _infer(self, inputs: list[triton.InferInput], outputs: list[triton.InferRequestedOutput]) -> triton.InferResult:
        """Send one request; try again, within the same deadline, when one replica's model process is dead."""
        deadline = time.monotonic() + self.timeout
        for pause in (0.05, 0.15, None):
            left = max(deadline - time.monotonic(), 0.001)
            try:
                # `timeout` lets the server drop what it could not begin in time; `client_timeout` ends the call here.
                return self._triton.infer(
                    MODEL, inputs, outputs=outputs, client_timeout=left, timeout=math.ceil(left * 1e6)
                )
            except InferenceServerException as error:
                if pause is None or _NOT_HEALTHY not in (error.message() or ""):
                    raise self._failure(error) from None
                time.sleep(min(pause, left))
        raise AssertionError("the last try returns or raises")

    def _failure(self, error: InferenceServerException) -> GroundingError:
        return from_status(error.status(), error.message(), self.url, self.timeout)


def _encoded(expressions: list[str]) -> list[bytes]:
    """Expressions as UTF-8. Bytes that a terminal passed on undecoded stay as they were, for the server to judge."""
    if not expressions:
        raise Refused("no expression given: say what to look for")
    try:
        return [expression.encode("utf-8", "surrogateescape") for expression in expressions]
    except AttributeError:
        raise Refused(f"expected expressions as strings, got {[type(e).__name__ for e in expressions]}") from None
    except UnicodeEncodeError:
        raise Refused("an expression holds half a character (a lone surrogate) and cannot be sent") from None


def _bytes_input(name: str, values: list[bytes]) -> triton.InferInput:
    # NumPy's own bytes type would cut zeros off the end of a file; objects are kept whole.
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return triton.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array)


def _checked(result: triton.InferResult, count: int, attention: bool) -> tuple[Array, Array, Array | None]:
    """BOX (N, 4), SCORE (N) and ATTENTION (N, h, w) or None; ServerFailed if they are not that."""
    try:
        box, score = result.as_numpy("BOX"), result.as_numpy("SCORE")
        maps = result.as_numpy("ATTENTION") if attention else None
    except ValueError as error:
        raise ServerFailed(f"the server's answer cannot be read: {error}") from None
    for name, array, shape in (("BOX", box, (count, 4)), ("SCORE", score, (count,))):
        if array is None or array.shape != shape or not np.isfinite(array).all():
            got = "none" if array is None else f"{array.shape}"
            raise ServerFailed(f"the server's answer is wrong: expected finite {name} of shape {shape}, got {got}")
    if attention and (maps is None or maps.ndim != 3 or len(maps) != count):
        raise ServerFailed(f"the server's answer is wrong: expected ATTENTION of shape ({count}, h, w)")
    return box, score, maps


def _corners(box: Array) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2

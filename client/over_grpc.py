"""Questions over gRPC: what the channel is told, and one call in its blocking and its asynchronous form.

Both raise InferenceServerException for a call that failed, with gRPC's status.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from client.address import Address, Tls
from client.errors import CLOSED
from client.pictures import MAX_BYTES, Array
from client.question import Question

# A name with several addresses is several replicas: spread over them, and go round the one that is down.
_SERVICE_CONFIG = '{"loadBalancingConfig": [{"round_robin": {}}]}'

# tritonclient drops all its own channel arguments when given any, so this list is complete.
_CHANNEL_ARGS: list[tuple[str, int | str]] = [
    ("grpc.max_send_message_length", MAX_BYTES),
    ("grpc.max_receive_message_length", MAX_BYTES),
    ("grpc.service_config", _SERVICE_CONFIG),
    # A call that the server never saw is sent anew by gRPC itself, but by default only if it is below 256 KiB.
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


class Grpc:
    """Blocking calls about one model; threads may share it."""

    def __init__(self, address: Address, model: str) -> None:
        self._triton = triton.InferenceServerClient(**_options(address))
        self._model = model
        self._closed = False

    def infer(self, question: Question, seconds: float) -> dict[str, Array | None]:
        """The outputs by name, within `seconds`."""
        with self._open():
            return question.arrays(self._triton.infer(self._model, **_call(question, seconds)))

    def ready(self, seconds: float) -> bool:
        """Whether the model can be asked."""
        with self._open():
            return bool(self._triton.is_model_ready(self._model, client_timeout=seconds))

    def share(self, region: str, size: int, seconds: float) -> None:
        """Tell the server of a region of shared memory, under its own name."""
        with self._open():
            self._triton.register_system_shared_memory(region, f"/{region}", size, client_timeout=seconds)

    def unshare(self, region: str, seconds: float) -> None:
        """Have the server let go of it."""
        self._triton.unregister_system_shared_memory(region, client_timeout=seconds)

    def close(self) -> None:
        """End the connection; calls that wait, and later ones, raise ValueError."""
        self._closed = True
        self._triton.close()

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Around a call, which another thread may end by closing."""
        try:
            yield
        except (InferenceServerException, ValueError):
            if self._closed:
                raise ValueError(CLOSED) from None
            raise


class AsyncGrpc:
    """The same for one event loop."""

    def __init__(self, address: Address, model: str) -> None:
        import tritonclient.grpc.aio as aio

        self._triton = aio.InferenceServerClient(**_options(address))
        self._model = model

    async def infer(self, question: Question, seconds: float) -> dict[str, Array | None]:
        """As in Grpc."""
        return question.arrays(await self._triton.infer(self._model, **_call(question, seconds)))

    async def ready(self, seconds: float) -> bool:
        """As in Grpc."""
        return bool(await self._triton.is_model_ready(self._model, client_timeout=seconds))

    async def close(self) -> None:
        """As in Grpc."""
        await self._triton.close()


def _options(address: Address) -> dict[str, Any]:
    credentials = None if address.tls is None else _credentials(address.tls)
    return {"url": address.target, "creds": credentials, "channel_args": _CHANNEL_ARGS}


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    ca, key, certificate = (
        None if path is None else Path(path).read_bytes() for path in (tls.ca, tls.key, tls.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _call(question: Question, seconds: float) -> dict[str, Any]:
    return {
        "inputs": question.inputs(triton),
        "outputs": question.requested(triton),
        # `timeout` lets the server drop what it could not begin in time; `client_timeout` ends the call here.
        "timeout": math.ceil(seconds * 1e6),
        "client_timeout": seconds,
    }

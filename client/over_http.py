"""Questions over HTTP, with the words and deadlines of those over gRPC.

Failed calls raise InferenceServerException with the gRPC status that the HTTP status, or the connection's fate, means.
"""

import asyncio
import contextlib
import math
import selectors
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

import aiohttp
import tritonclient.http as triton
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

from client.address import Address
from client.errors import CLOSED, ServerFailed
from client.pictures import Array
from client.question import Question

T = TypeVar("T")

_STATUS = {
    "400": "INVALID_ARGUMENT",
    "404": "NOT_FOUND",
    "413": "RESOURCE_EXHAUSTED",
    "429": "UNAVAILABLE",
    "499": "CANCELLED",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "DEADLINE_EXCEEDED",
}


class AsyncHttp:
    """Calls about one model, on the event loop that is running when it is made."""

    def __init__(self, address: Address, model: str) -> None:
        tls = address.tls
        self._model = model
        self._triton = aio.InferenceServerClient(
            address.target,
            ssl=tls is not None,
            ssl_context=True if tls is None else tls.context(),  # True is what aiohttp calls its default
            conn_timeout=None,  # each call has its own deadline
        )

    async def infer(self, question: Question, seconds: float) -> dict[str, Array | None]:
        """The outputs by name, within `seconds`."""
        inputs, outputs = question.inputs(triton), question.requested(triton)
        try:
            async with _deadline(seconds):
                timeout = math.ceil(seconds * 1e6)
                result = await self._triton.infer(self._model, inputs, outputs=outputs, timeout=timeout)
            return question.arrays(result)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            # tritonclient takes whatever comes with HTTP 200 for an answer of Triton's
            raise ServerFailed(f"the server's answer cannot be read ({error}): is it a Triton server?") from None

    async def ready(self, seconds: float) -> bool:
        """Whether the model can be asked."""
        async with _deadline(seconds):
            return bool(await self._triton.is_model_ready(self._model))

    async def share(self, region: str, size: int, seconds: float) -> None:
        """Tell the server of a region of shared memory, under its own name."""
        async with _deadline(seconds):
            await self._triton.register_system_shared_memory(region, f"/{region}", size)

    async def unshare(self, region: str, seconds: float) -> None:
        """Have the server let go of it."""
        async with _deadline(seconds):
            await self._triton.unregister_system_shared_memory(region)

    async def close(self) -> None:
        """End all connections."""
        await self._triton.close()


class Http:
    """The same for callers without an event loop: it keeps one in a thread of its own, which callers may share, until
    `close` or until nobody holds it any more."""

    def __init__(self, address: Address, model: str) -> None:
        # A forked process shares an epoll, and would take the connections out of it with its copy of the client.
        self._loop = asyncio.SelectorEventLoop(selectors.PollSelector())
        self._closed = False
        self._closing = threading.Lock()  # held while a call is begun, so that none begins after the last
        self._thread = threading.Thread(target=_run_until_stopped, args=(self._loop,), name="gin-http", daemon=True)
        self._thread.start()
        self._http = self._run(_make(address, model))
        self._end = weakref.finalize(self, _let_go, self._loop, self._http)

    def infer(self, question: Question, seconds: float) -> dict[str, Array | None]:
        """As in AsyncHttp."""
        return self._run(self._http.infer(question, seconds))

    def ready(self, seconds: float) -> bool:
        """As in AsyncHttp."""
        return self._run(self._http.ready(seconds))

    def share(self, region: str, size: int, seconds: float) -> None:
        """As in AsyncHttp."""
        self._run(self._http.share(region, size, seconds))

    def unshare(self, region: str, seconds: float) -> None:
        """As in AsyncHttp."""
        self._run(self._http.unshare(region, seconds))

    def close(self) -> None:
        """End all connections; calls that wait, and later ones, raise ValueError."""
        with self._closing:
            self._closed = True
        self._end()  # the first time only
        self._thread.join()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._closing:
            if self._closed:
                coroutine.close()
                raise ValueError(CLOSED)
            call = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return call.result()
        except CancelledError:
            raise ValueError(CLOSED) from None


async def _make(address: Address, model: str) -> AsyncHttp:
    return AsyncHttp(address, model)


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _let_go(loop: asyncio.AbstractEventLoop, http: AsyncHttp) -> None:
    """End connections, calls and loop. Waits for none: any thread may collect garbage, the loop's own too."""
    loop.call_soon_threadsafe(lambda: loop.create_task(_finish(http)))


async def _finish(http: AsyncHttp) -> None:
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await http.close()
    asyncio.get_running_loop().stop()


@contextlib.asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Ends what is inside after `seconds`, and words its failures as gRPC would."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except InferenceServerException as error:
        # Only Triton answers in JSON. Anything else comes from a stranger or a proxy, whose page nobody wants to read.
        why = error.message() if error.debug_details() is None else f"it answered HTTP {error.status()}"
        raise InferenceServerException(why, _STATUS.get(error.status() or "", "INTERNAL")) from None
    except TimeoutError:
        raise InferenceServerException("too late", "DEADLINE_EXCEEDED") from None
    except UnicodeDecodeError:  # an answer that is no text
        raise
    except UnicodeError as error:  # a name that is none
        raise InferenceServerException(f"failed to connect: {error}", "UNAVAILABLE") from None
    except aiohttp.ClientSSLError as error:
        raise InferenceServerException(f"handshake failed: {error}", "UNAVAILABLE") from None
    except aiohttp.ClientConnectorError as error:
        raise InferenceServerException(f"failed to connect: {error}", "UNAVAILABLE") from None
    except aiohttp.ClientResponseError:
        raise InferenceServerException("Connection reset: it does not speak HTTP", "UNAVAILABLE") from None
    except aiohttp.ClientError as error:
        raise InferenceServerException(f"Connection reset: {error}", "UNAVAILABLE") from None

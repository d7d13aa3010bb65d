"""`AsyncClient`: what `Client` does, for asyncio."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from tritonclient.utils import InferenceServerException

from client.address import DEFAULT_URL, Address, Tls
from client.answers import Answers
from client.errors import CLOSED, OTHER_LOOP, GroundingError, from_status
from client.library import (
    DEFAULT_IN_FLIGHT,
    DEFAULT_MODEL,
    DEFAULT_TIMEOUT,
    Asked,
    check_in_flight,
    check_timeout,
    not_ready,
)
from client.over_grpc import AsyncGrpc
from client.pictures import ImageLike
from client.question import Question
from client.retry import Budget, Call

if TYPE_CHECKING:
    from client.over_http import AsyncHttp

T = TypeVar("T")


class AsyncClient:
    """`client.Client` with awaitable calls: same arguments, answers and errors.

    It belongs to the event loop of its first call; in another one, calls raise ValueError. Shared memory is for
    blocking calls only.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        timeout: float = DEFAULT_TIMEOUT,
        tls: Tls | None = None,
        model: str = DEFAULT_MODEL,
    ) -> None:
        self.url, self.timeout = url, check_timeout(timeout)
        self._address, self._model = Address.parse(url, tls), model
        self._made: AsyncGrpc | AsyncHttp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # that it was made on
        self._calls: set[asyncio.Task[Any]] = set()  # that wait for the server
        self._closed = False
        self._budget = Budget()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; calls that wait, and later ones, raise ValueError."""
        self._closed = True
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if self._made is not None:
            await self._made.close()

    async def ready(self) -> bool:
        """As `Client.ready`."""
        try:
            return await self._wait(self._connection.ready(self.timeout))
        except InferenceServerException as error:
            return not_ready(error, self.url, self.timeout)

    async def ground(
        self, image: ImageLike, expressions: str | Iterable[str], attention: bool = False, top_k: int = 1
    ) -> Answers:
        """As `Client.ground`."""
        # Reading a file or encoding pixels would hold up everything else on the loop.
        question = await asyncio.to_thread(Question.ask, image, expressions, attention, top_k)
        call = Call(self._budget, self.timeout)
        while True:
            try:
                arrays = await self._wait(self._connection.infer(question, call.left()))
            except InferenceServerException as error:
                await asyncio.sleep(call.pause(from_status(error.status(), error.message(), self.url, self.timeout)))
            else:
                call.answered()
                return question.answers(arrays, call.seconds())

    async def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        """What `call` returns. `close` cancels it, and not who waits for it."""
        task = asyncio.create_task(call)
        self._calls.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if self._closed and waiting is not None and not waiting.cancelling():
                raise ValueError(CLOSED) from None
            raise
        finally:
            self._calls.discard(task)

    @overload
    def ground_many(
        self,
        questions: Iterable[Asked] | AsyncIterable[Asked],
        in_flight: int = ...,
        attention: bool = ...,
        top_k: int = ...,
        return_errors: Literal[False] = ...,
    ) -> AsyncIterator[Answers]: ...

    @overload
    def ground_many(
        self,
        questions: Iterable[Asked] | AsyncIterable[Asked],
        in_flight: int = ...,
        attention: bool = ...,
        top_k: int = ...,
        *,
        return_errors: bool,
    ) -> AsyncIterator[Answers | GroundingError]: ...

    def ground_many(
        self,
        questions: Iterable[Asked] | AsyncIterable[Asked],
        in_flight: int = DEFAULT_IN_FLIGHT,
        attention: bool = False,
        top_k: int = 1,
        return_errors: bool = False,
    ) -> AsyncIterator[Answers | GroundingError]:
        """As `Client.ground_many`, for `async for`; questions that are still waited for at its end are cancelled."""
        check_in_flight(in_flight)
        return self._ground_many(questions, in_flight, attention, top_k, return_errors)

    async def _ground_many(
        self,
        questions: Iterable[Asked] | AsyncIterable[Asked],
        in_flight: int,
        attention: bool,
        top_k: int,
        return_errors: bool,
    ) -> AsyncIterator[Answers | GroundingError]:
        waiting: deque[asyncio.Task[Answers]] = deque()
        try:
            async for image, expressions in _each(questions):
                waiting.append(asyncio.create_task(self.ground(image, expressions, attention, top_k)))
                if len(waiting) == in_flight:
                    yield await _outcome(waiting.popleft(), return_errors)
            while waiting:
                yield await _outcome(waiting.popleft(), return_errors)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    @property
    def _connection(self) -> "AsyncGrpc | AsyncHttp":
        """Made at the first call, on the loop that runs then."""
        if self._closed:
            raise ValueError(CLOSED)
        loop = asyncio.get_running_loop()
        if self._made is None:
            self._loop = loop
            if self._address.http:
                from client.over_http import AsyncHttp

                self._made = AsyncHttp(self._address, self._model)
            else:
                self._made = AsyncGrpc(self._address, self._model)
        if self._loop is not loop:
            raise ValueError(OTHER_LOOP)
        return self._made


async def _each(questions: Iterable[Asked] | AsyncIterable[Asked]) -> AsyncIterator[Asked]:
    if isinstance(questions, AsyncIterable):
        async for question in questions:
            yield question
    else:
        for question in questions:
            yield question


async def _outcome(task: asyncio.Task[Answers], return_errors: bool) -> Answers | GroundingError:
    try:
        return await task
    except GroundingError as error:
        if return_errors:
            return error
        raise

"""The library: `Client` asks a Triton server that serves `gin` or a variant of it, over gRPC or HTTP."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Literal, Self, TypeAlias, overload

from tritonclient.utils import InferenceServerException

from client.address import DEFAULT_URL, Address, Tls
from client.answers import Answers, Candidate, Grounding
from client.errors import FORKED, GroundingError, TimedOut, from_status
from client.over_grpc import Grpc
from client.pictures import Array, ImageLike
from client.question import Question
from client.retry import Budget, Call
from client.shared import Regions

__all__ = [
    "DEFAULT_IN_FLIGHT",
    "DEFAULT_MODEL",
    "DEFAULT_TIMEOUT",
    "DEFAULT_URL",
    "Answers",
    "Candidate",
    "Client",
    "Grounding",
    "Tls",
]

DEFAULT_TIMEOUT = 10.0
DEFAULT_MODEL = "gin"
DEFAULT_IN_FLIGHT = 4

Asked: TypeAlias = tuple[ImageLike, str | Iterable[str]]
"""A picture, and an expression or several about it."""


class Client:
    """A connection to one server (or to the replicas behind one name); threads may share it, forked processes may not:
    there all calls raise ValueError.

    url: HOST:PORT or grpc://HOST:PORT for gRPC, http://HOST:PORT for HTTP, grpcs:// and https:// for either encrypted,
    with `tls` if the well-known authorities do not know the server or it wants to know the client. Answers and errors
    are the same over all of them.
    timeout: seconds within which every call ends, counted from sending. Within them a call that finds the server
    unavailable is tried up to three times, unless most calls fail. Nothing is sent before the first call, so making a
    client never fails for lack of a server.
    shared_memory: send large pictures to a server on this machine through its memory; the server must allow it
    (`python -m serve --unrestricted shared-memory`), else calls raise Refused. For one server, not for replicas.
    model: which one to ask, of those that the server serves; a variant such as `gin_int8` takes and answers the same.

    Raises ValueError for what is no address, a timeout that is not above 0 and below a day or unusable certificates.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        timeout: float = DEFAULT_TIMEOUT,
        tls: Tls | None = None,
        shared_memory: bool = False,
        model: str = DEFAULT_MODEL,
    ) -> None:
        self.url, self.timeout = url, check_timeout(timeout)
        address = Address.parse(url, tls)
        if address.http:
            from client.over_http import Http  # imports an HTTP library that gRPC does not need

            self._connection: Grpc | Http = Http(address, model)
        else:
            self._connection = Grpc(address, model)
        self._regions = Regions(self._connection, url) if shared_memory else None
        self._budget = Budget()
        self._process = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls of other threads that wait, and later ones, raise ValueError."""
        if self._process != os.getpid():
            return  # the connection and the shared memory are the other process's
        if self._regions is not None:
            self._regions.close()
        self._connection.close()

    def ready(self) -> bool:
        """Whether the server is there and its model ready. False, not an error, when one of them is not there."""
        self._check_process()
        try:
            return self._connection.ready(self.timeout)
        except InferenceServerException as error:
            return not_ready(error, self.url, self.timeout)

    def ground(
        self, image: ImageLike, expressions: str | Iterable[str], attention: bool = False, top_k: int = 1
    ) -> Answers:
        """The thing that each expression names, in the order of `expressions` (one string is a list of one).

        `image` is a path, the bytes of an image file, a Pillow image, or uint8 pixels (H, W, 3) in RGB order or
        (H, W); see client.pictures. With `attention`, each answer also carries its attention map, with `top_k` the next
        best boxes too, so many with the best, up to 10.
        Raises a GroundingError: Refused for bad input; Unreachable, Busy, TimedOut or ServerFailed otherwise.
        """
        question = Question.ask(image, expressions, attention, top_k)
        call = Call(self._budget, self.timeout)
        while True:
            try:
                arrays = self._infer(question, call)
            except InferenceServerException as error:
                time.sleep(call.pause(from_status(error.status(), error.message(), self.url, self.timeout)))
            else:
                call.answered()
                return question.answers(arrays, call.seconds())

    def _check_process(self) -> None:
        """ValueError in a forked process: nobody there sends and receives for its copy of the connection."""
        if self._process != os.getpid():
            raise ValueError(FORKED)

    def _infer(self, question: Question, call: Call) -> dict[str, Array | None]:
        self._check_process()
        if self._regions is None:
            return self._connection.infer(question, call.left())
        with self._regions.holding(question.data, call.left()) as place:
            return self._connection.infer(question.at(place), call.left())

    @overload
    def ground_many(
        self,
        questions: Iterable[Asked],
        in_flight: int = ...,
        attention: bool = ...,
        top_k: int = ...,
        return_errors: Literal[False] = ...,
    ) -> Iterator[Answers]: ...

    @overload
    def ground_many(
        self,
        questions: Iterable[Asked],
        in_flight: int = ...,
        attention: bool = ...,
        top_k: int = ...,
        *,
        return_errors: bool,
    ) -> Iterator[Answers | GroundingError]: ...

    def ground_many(
        self,
        questions: Iterable[Asked],
        in_flight: int = DEFAULT_IN_FLIGHT,
        attention: bool = False,
        top_k: int = 1,
        return_errors: bool = False,
    ) -> Iterator[Answers | GroundingError]:
        """The answers to each (image, expressions) of `questions`, in their order, as they come.

        Up to `in_flight` questions are read, sent and waited for at once; no more are taken from `questions`, which may
        be endless. The first answer is handed out when so many have been taken or there are no more: where a question
        depends on the answers before it, use `ground`. Until its answer has come a Pillow image must stay open, and an
        array as it is. A question that fails raises its GroundingError here and ends the iteration; with
        `return_errors` it takes the place of its answers instead, and the iteration goes on.
        """
        check_in_flight(in_flight)
        return self._ground_many(questions, in_flight, attention, top_k, return_errors)

    def _ground_many(
        self, questions: Iterable[Asked], in_flight: int, attention: bool, top_k: int, return_errors: bool
    ) -> Iterator[Answers | GroundingError]:
        pool = ThreadPoolExecutor(in_flight)
        waiting: deque[Future[Answers]] = deque()
        try:
            for image, expressions in questions:
                waiting.append(pool.submit(self.ground, image, expressions, attention, top_k))
                if len(waiting) == in_flight:
                    yield _outcome(waiting.popleft(), return_errors)
            while waiting:
                yield _outcome(waiting.popleft(), return_errors)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def check_timeout(timeout: float) -> float:
    """`timeout` itself if it is above 0 and below a day; else ValueError. In 300 years gRPC's clock is past its end."""
    if not 0 < timeout < 86_400:
        raise ValueError(f"expected a timeout in seconds above 0 and below a day, got {timeout}")
    return timeout


def check_in_flight(in_flight: int) -> None:
    """ValueError unless at least one question may be in flight."""
    if in_flight < 1:
        raise ValueError(f"expected at least 1 question in flight, got {in_flight}")


def not_ready(error: InferenceServerException, url: str, timeout: float) -> bool:
    """False if `error` means that nobody is there, or not ready; else the error of the family is raised."""
    failure = from_status(error.status(), error.message(), url, timeout)
    if failure.may_pass or isinstance(failure, TimedOut) or "NOT_FOUND" in str(error.status()):
        return False
    raise failure from None


def _outcome(future: Future[Answers], return_errors: bool) -> Answers | GroundingError:
    try:
        return future.result()
    except GroundingError as error:
        if return_errors:
            return error
        raise

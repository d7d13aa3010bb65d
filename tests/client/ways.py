"""The ways of asking, so that one test can take all of them: over gRPC or HTTP, blocking or awaited."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from fake_kserve import FakeServer

from client import Answers, AsyncClient, Client, GroundingError, Tls


class Awaited:
    """`AsyncClient` with the methods of `Client`, so that the same tests ask both."""

    def __init__(self, url: str, timeout: float = 10.0, tls: Tls | None = None, model: str = "gin") -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(url, timeout, tls, model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def ready(self) -> bool:
        return self._runner.run(self._client.ready())

    def ground(self, *arguments: Any, **options: Any) -> Answers:
        return self._runner.run(self._client.ground(*arguments, **options))

    def ground_many(self, *arguments: Any, **options: Any) -> Iterator[Answers | GroundingError]:
        found = self._client.ground_many(*arguments, **options)

        async def following() -> Answers | GroundingError:
            return await anext(found)

        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._runner.run(following())


@dataclass
class Way:
    """A kind of client, and a server that it can ask."""

    connect: type[Client] | type[Awaited]
    server: FakeServer
    http: bool

    def url_of(self, address: str) -> str:
        """The address of somebody else, for this kind of client."""
        return f"http://{address}" if self.http else address

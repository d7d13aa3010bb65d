"""Batches of what waits: what arrives while batches run is the next."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Batches(Generic[Item]):
    """Runs waiting items together, beginning in the order in which they came.

    It has no threads of its own: who puts an item in runs batches until nothing waits, unless others do already. To
    hand items over to another thread would take longer than to read an expression.

    run: gets at most as many items as weigh `most` together, but always one; it must not raise. at_once: how many
    batches run at once.
    """

    def __init__(
        self, run: Callable[[list[Item]], None], weigh: Callable[[Item], int], most: int, at_once: int
    ) -> None:
        self._run, self._weigh, self._most = run, weigh, most
        self._waiting: deque[Item] = deque()
        self._lock = threading.Lock()
        self._free = at_once

    def put(self, item: Item) -> None:
        """Leave an item to those who run batches; if there are too few, be one of them until nothing waits."""
        with self._lock:
            self._waiting.append(item)
            if not self._free:
                return
            self._free -= 1
        while batch := self._next():
            self._run(batch)

    def _next(self) -> list[Item]:
        """What to run together; nothing if nothing waits, and then the place is free again."""
        with self._lock:
            batch: list[Item] = []
            weight = 0
            while self._waiting and (not batch or weight + self._weigh(self._waiting[0]) <= self._most):
                weight += self._weigh(self._waiting[0])
                batch.append(self._waiting.popleft())
            if not batch:
                self._free += 1
            return batch

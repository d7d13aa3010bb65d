"""Batches of what waits: what arrives while batches run is the next."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Batches(Generic[Item]):
    """Threads that run waiting items together, beginning in the order in which they came.

    run: gets at most as many items as weigh `most` together, but always one; it must not raise. threads: how many
    batches run at once.
    """

    def __init__(
        self, run: Callable[[list[Item]], None], weigh: Callable[[Item], int], most: int, threads: int
    ) -> None:
        self._run, self._weigh, self._most = run, weigh, most
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def put(self, item: Item) -> None:
        """Let an item wait for its turn."""
        with self._changed:
            self._waiting.append(item)
            self._changed.notify()

    def end(self) -> None:
        """Run what waits, then end the threads."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                batch = [self._waiting.popleft()]
                weight = self._weigh(batch[0])
                while self._waiting and weight + self._weigh(self._waiting[0]) <= self._most:
                    weight += self._weigh(self._waiting[0])
                    batch.append(self._waiting.popleft())
            self._run(batch)

"""How far a long job is, on stderr: a bar on a terminal, elsewhere a line a minute."""

import datetime
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
EVERY = 60.0  # seconds between two lines, and before the first: what takes less says nothing


class Steps:
    """Shows how many of `total` steps are done, while it is open. name: what stands before their number."""

    def __init__(self, name: str, total: int, shown: bool = True) -> None:
        self._name, self._total, self._shown = name, total, shown
        self._started = time.monotonic()
        self._due = self._started + EVERY
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty():
            columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[said]}")
            console = Console(stderr=True)
            self._bar = Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)
            self._task = self._bar.add_task(name, total=total, said="")

    def __call__(self, done: int, said: str = "") -> None:
        """done: steps so far, at least one. said: what else there is to say about them."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, said=said)
        elif self._shown and now >= self._due:
            self._due = now + EVERY
            left = datetime.timedelta(seconds=round((now - self._started) / done * (self._total - done)))
            told = [f"{self._name} {done} of {self._total}", *filter(None, [said]), f"{left} left"]
            print(", ".join(told), file=sys.stderr)

    def __enter__(self) -> "Steps":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def track(items: Iterable[Item], name: str, total: int, shown: bool = True) -> Iterator[Item]:
    """The items, of which each is a step that is done when the next is asked for."""
    with Steps(name, total, shown) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress(done)

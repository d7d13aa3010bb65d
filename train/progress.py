"""A progress bar for an epoch; silent where nobody watches."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.loss import Losses

EVERY = 10  # steps between two looks at the loss, each of which waits for the device


class EpochProgress:
    """Called with each step's losses, it moves a bar on a terminal; elsewhere it does nothing."""

    def __init__(self, epoch: int, epochs: int, steps: int, shown: bool) -> None:
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty():
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(f"epoch {epoch + 1}/{epochs}", total=steps)
        self._name = f"epoch {epoch + 1}/{epochs}"
        self._steps = 0

    def __call__(self, losses: Losses) -> None:
        """Count one step."""
        if self._bar is None:
            return
        self._steps += 1
        if self._steps % EVERY == 0:
            self._bar.update(self._task, description=f"{self._name} loss {float(losses.total):.3f}")
        self._bar.advance(self._task)

    def __enter__(self) -> "EpochProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

"""A progress bar for an epoch; silent where nobody watches."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class EpochProgress:
    """Moves a bar on a terminal; elsewhere it does nothing. name: what stands before the bar."""

    def __init__(self, name: str, steps: int, shown: bool) -> None:
        self._name = name
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty():
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(name, total=steps)

    def __call__(self, steps: int, loss: float, images_per_second: float) -> None:
        """steps: done so far."""
        if self._bar is not None:
            text = f"{self._name} | loss {loss:.3f} | {images_per_second:.0f} images/s"
            self._bar.update(self._task, completed=steps, description=text)

    def __enter__(self) -> "EpochProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

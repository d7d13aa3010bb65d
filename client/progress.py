"""How far a long job is: one line that rewrites itself on a terminal, and nothing elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

_EVERY = 0.1  # seconds between two drawings
_BAR = 24  # letters


class Progress:
    """Counts to `total`: `12/500 [==>     ] 31.2/s, 16 s left`. Use it as a context manager."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty() and total > 0
        self._total, self._done = total, 0
        self._start = self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if self._shown and (now - self._drawn >= _EVERY or self._done == self._total):
            self._drawn = now
            self._stream.write(f"\r\x1b[K{self._line(now - self._start)}")
            self._stream.flush()

    def clear(self) -> None:
        """Leave the terminal's line to others."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, seconds: float) -> str:
        rate = self._done / max(seconds, 1e-9)
        filled = _BAR * self._done // self._total
        bar = ("=" * filled + ">")[:_BAR].ljust(_BAR)
        return (
            f"{self._done}/{self._total} [{bar}] {rate:.1f}/s, {_spoken(max(self._total - self._done, 0) / rate)} left"
        )


def _spoken(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"

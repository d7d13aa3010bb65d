"""As many frames asked about as a server keeps up with; the others are passed over."""

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

from client.answers import Answers
from client.errors import GroundingError, TimedOut
from client.library import Client
from client.retry import PATIENCE
from client.video.source import Frame

_WINDOW = 2.0  # seconds over which the rate is taken
_KEPT = 100_000  # latencies: an hour of a fast camera
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Answered:
    """latency: seconds from the arrival of the frame to the answer, encoding included."""

    frame: Frame
    answers: Answers
    latency: float


class Asking:
    """Asks the same expressions about frame after frame, at most `in_flight` at once. Those that a server which has
    answered is away for, or too busy, stay without an answer.

    tell: called with each answer as it comes, from one thread at a time. newest: the answer about the latest frame of
    those that were answered.
    """

    def __init__(
        self, client: Client, expressions: Sequence[str], in_flight: int, tell: Callable[[Answered], None]
    ) -> None:
        self._client, self._expressions, self._tell = client, expressions, tell
        self._pool = ThreadPoolExecutor(in_flight)
        self._in_flight = in_flight
        self._waiting: list[Future[None]] = []
        self._lock = threading.Lock()
        self._latencies: deque[float] = deque(maxlen=_KEPT)
        self._came: deque[float] = deque()  # when each answer of the window came
        self._began = time.monotonic()
        self._deadline = self._began  # for the next answer
        self.newest: Answered | None = None
        self._offered = self._asked = self._answered = 0
        self._reported = False

    def offer(self, frame: Frame) -> None:
        """Ask about `frame`, unless `in_flight` others are being asked about. Raises what an earlier question met."""
        self._settle([future for future in self._waiting if future.done()])
        self._offered += 1
        if len(self._waiting) < self._in_flight:
            self._waiting.append(self._pool.submit(self._ask, frame))
            self._asked += 1

    def finish(self) -> None:
        """Wait for the answers that are still to come. Raises what a question met."""
        self._settle(list(self._waiting))

    def rate(self) -> float:
        """Answers a second, of late."""
        now = time.monotonic()
        with self._lock:
            while self._came and self._came[0] < now - _WINDOW:
                self._came.popleft()
            return len(self._came) / min(now - self._began, _WINDOW)

    def report(self) -> dict[str, float | None]:
        """What was done since the first question; dropped are the frames that were not asked about. No answer is told
        of after it."""
        seconds = time.monotonic() - self._began
        with self._lock:
            self._reported = True
            latency = median(self._latencies) * 1e3 if self._latencies else None
            return {
                "frames": self._offered,
                "asked": self._asked,
                "answered": self._answered,
                "dropped": self._offered - self._asked,
                "seconds": round(seconds, 3),
                "frames_per_second": round(self._offered / seconds, 2),
                "answers_per_second": round(self._answered / seconds, 2),
                "median_milliseconds": None if latency is None else round(latency, 3),
            }

    def _settle(self, futures: list[Future[None]]) -> None:
        for future in futures:
            self._waiting.remove(future)
            try:
                future.result()
            except GroundingError as error:
                passes = error.may_pass or isinstance(error, TimedOut)
                if not passes or time.monotonic() > self._deadline:
                    raise

    def _ask(self, frame: Frame) -> None:
        buffer = io.BytesIO()
        frame.image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        answers = self._client.ground(buffer.getvalue(), self._expressions)
        now = time.monotonic()
        answered = Answered(frame, answers, now - frame.arrived)
        with self._lock:
            if self._reported:
                return
            self._answered += 1
            self._deadline = now + PATIENCE
            self._latencies.append(answered.latency)
            self._came.append(now)
            if self.newest is None or self.newest.frame.number < frame.number:
                self.newest = answered
            self._tell(answered)

"""When to try a call again: pauses that grow, within one deadline, and a budget that all calls of a client share."""

import random
import threading
import time

from client.errors import GroundingError, Refused

PAUSES = (0.05, 0.15)  # seconds before the second and the third try
PATIENCE = 60.0  # seconds that long jobs give a server which has answered to come back
_JITTER = 0.2  # so that clients which failed together do not come back together
_FULL, _EARNED = 10.0, 0.1  # tokens: a failure costs one, ten successes earn one


class Budget:
    """When most calls fail, nothing is tried again: retries of every client would keep an overloaded server down."""

    def __init__(self) -> None:
        self._tokens = _FULL
        self._lock = threading.Lock()

    def earn(self) -> None:
        """The server answered, if only with a refusal."""
        with self._lock:
            self._tokens = min(self._tokens + _EARNED, _FULL)

    def spend(self) -> bool:
        """A call failed; whether it may be tried again."""
        with self._lock:
            self._tokens = max(self._tokens - 1, 0.0)
            return self._tokens > _FULL / 2


class Call:
    """One call with its tries, none of which ends later than `timeout` seconds from now."""

    def __init__(self, budget: Budget, timeout: float) -> None:
        self._budget = budget
        self._start = time.monotonic()
        self._timeout = timeout
        self._pauses = iter(PAUSES)

    def seconds(self) -> float:
        """Since the call began."""
        return time.monotonic() - self._start

    def left(self) -> float:
        """Seconds for the next try."""
        return max(self._timeout - self.seconds(), 0.001)

    def answered(self) -> None:
        """Note that the call went well."""
        self._budget.earn()

    def pause(self, error: GroundingError) -> float:
        """Seconds to wait after `error` before the next try. Raises `error` if there must be none."""
        if isinstance(error, Refused):
            self._budget.earn()
        if not error.may_pass:
            raise error from None
        pause = next(self._pauses, None)
        if not self._budget.spend() or pause is None or pause >= self.left():
            raise error from None
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER)

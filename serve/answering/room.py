"""How many requests may be unanswered at once."""

import threading
import time


class Room:
    """Places for so many; threads may share it. taken: how many are taken."""

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0
        self._moved = time.monotonic()  # when a place was given back last, or the first was taken
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take a place; False if there is none."""
        with self._lock:
            free = self.taken < self.size
            if not self.taken:
                self._moved = time.monotonic()
            self.taken += free
            return free

    def give_back(self) -> None:
        """Leave a place that was taken."""
        with self._lock:
            self.taken -= 1
            self._moved = time.monotonic()

    def stuck(self) -> float:
        """Seconds for which places have been taken and none was given back."""
        return time.monotonic() - self._moved if self.taken else 0.0

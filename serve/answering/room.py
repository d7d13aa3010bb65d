"""How many requests may be unanswered at once."""

import threading


class Room:
    """Places for so many; threads may share it. taken: how many are taken."""

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take a place; False if there is none."""
        with self._lock:
            free = self.taken < self.size
            self.taken += free
            return free

    def give_back(self) -> None:
        """Leave a place that was taken."""
        with self._lock:
            self.taken -= 1

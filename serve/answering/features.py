"""Features of images that were asked about before, the most recent first."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from onnxruntime import OrtValue


@dataclass(frozen=True)
class Seen:
    """What the network keeps of an image. levels: float32 (1, ...) per stride, on the network's device. size: (height,
    width) in pixels."""

    levels: tuple[OrtValue, ...]
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory."""
        return sum(level.tensor_size_in_bytes() for level in self.levels)


class Features:
    """Keeps what was used last, up to `capacity` bytes. Threads may share it.

    Keys are made of the file's content. There is one such cache per model version, whose process it lives in, so what
    one version has computed never answers for another.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.nbytes = 0
        self._kept: OrderedDict[bytes, Seen] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Seen | None:
        """What is kept of an image, which counts as used."""
        with self._lock:
            seen = self._kept.get(key)
            if seen is not None:
                self._kept.move_to_end(key)
            return seen

    def put(self, key: bytes, seen: Seen) -> None:
        """Keep it, and let go of what was unused for longest; what is larger than the cache is not kept."""
        if seen.nbytes > self.capacity:
            return
        with self._lock:
            former = self._kept.pop(key, None)
            self.nbytes += seen.nbytes - (former.nbytes if former else 0)
            self._kept[key] = seen
            while self.nbytes > self.capacity:
                self.nbytes -= self._kept.popitem(last=False)[1].nbytes

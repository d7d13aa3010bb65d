"""Reading inputs of strings, without reading those that will be refused.

Triton's stub makes Python objects of all strings of a request before the model sees it. In release 2.51 it does so in
Python, holding the interpreter: nine million empty strings, which fit into a message of 34 MiB, would stop all answers
for a quarter of a minute.
"""

import struct
from collections.abc import Sequence

import numpy as np

from model.preparation import MAX_EXPRESSIONS


class _Unread:
    """More strings than are accepted, as so many empty ones."""

    def reshape(self, shape: Sequence[int]) -> np.ndarray:
        """What the stub does with the strings."""
        return np.broadcast_to(np.array(b"", dtype=np.object_), tuple(shape))


def read_strings(encoded: np.ndarray) -> "np.ndarray | _Unread":
    """In the place of `deserialize_bytes_tensor`: strings, each behind its length, to bytes in an array of objects."""
    strings: list[bytes] = []
    buffer, start = encoded.data, 0
    while start < len(buffer):
        if len(strings) == MAX_EXPRESSIONS:
            return _Unread()
        (length,) = struct.unpack_from("<I", buffer, start)
        start += 4 + length
        strings.append(bytes(buffer[start - length : start]))
    array = np.empty(len(strings), dtype=np.object_)
    array[:] = strings
    return array

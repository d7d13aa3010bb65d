"""Pictures through this machine's shared memory instead of in the message, for a server on the same machine.

It saves copies on the way, and is meant for files of a megabyte and more.
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, NamedTuple

from tritonclient.utils import InferenceServerException

from client.errors import Refused, cause

if TYPE_CHECKING:
    from client.over_grpc import Grpc
    from client.over_http import Http

PREFIX = "gin-client-"  # of the names under /dev/shm
_LEAST = 2**20  # bytes of a region; larger ones are powers of two, so that they fit other pictures too
_WAIT = 1.0  # seconds, at most, for the server to let go of regions


class Place(NamedTuple):
    """Where a tensor is: the name of a region, and how many of its bytes are the tensor."""

    region: str
    size: int


class Regions:
    """Regions that the server knows. Each is one call's at a time and then kept for the next, until `close`.

    If the process is killed instead, the names go from /dev/shm, but the server keeps the memory until it ends.
    """

    def __init__(self, connection: "Grpc | Http", url: str) -> None:
        self._connection, self._url = connection, url
        self._free: list[SharedMemory] = []
        self._known: set[str] = set()  # to the server, as far as this client can tell
        self._spoilt: set[str] = set()  # those of them that no call will have any more
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def holding(self, data: bytes, seconds: float) -> Iterator[Place]:
        """`data` as a BYTES tensor of one element, in a region that is the caller's until the end of the block.

        Raises Refused if there can be none, and InferenceServerException if the server cannot be asked for one.
        """
        size = len(data) + 4
        region = self._take(size, seconds)
        try:
            assert region.buf is not None
            region.buf[:4], region.buf[4:size] = len(data).to_bytes(4, "little"), data
            yield Place(region.name, size)
        except BaseException:
            # The server may be reading this one still, or be a new process that knows none of them.
            self._spoil([region])
            raise
        with self._lock:
            self._free.append(region)
        if self._closed:
            self._spoil([])
        self._forget(list(self._spoilt), _WAIT)

    def close(self) -> None:
        """Take all regions back; the server lets go of those in use when it is done with them, if that is soon."""
        if self._closed:
            return
        self._closed = True
        self._spoil([])
        until = time.monotonic() + _WAIT
        while self._known and (left := until - time.monotonic()) > 0:
            self._forget(list(self._known), left)
            time.sleep(0.01 if self._known else 0)

    def _take(self, size: int, seconds: float) -> SharedMemory:
        with self._lock:
            for n, region in enumerate(self._free):
                if region.size >= size:
                    return self._free.pop(n)
        region = _make(max(_LEAST, 1 << (size - 1).bit_length()))
        with self._lock:
            self._known.add(region.name)  # by the time that a call fails, the server may have heard of it
        try:
            self._connection.share(region.name, region.size, seconds)
        except BaseException as error:
            self._spoil([region])
            if isinstance(error, InferenceServerException) and not _may_pass(error):
                raise Refused(
                    f"the server at {self._url} takes no shared memory from here ({cause(error.message())}): start it "
                    "on this machine with `python -m serve --unrestricted shared-memory`, or do without shared_memory"
                ) from None
            raise
        return region

    def _spoil(self, regions: Iterable[SharedMemory]) -> None:
        """Unlink `regions` and all free ones. The server is told later: what failed may have been the server."""
        with self._lock:
            ended = [*regions, *self._free]
            self._free.clear()
            self._spoilt.update(region.name for region in ended)
        for region in ended:
            region.unlink()

    def _forget(self, names: Iterable[str], seconds: float) -> None:
        for name in names:
            try:
                self._connection.unshare(name, seconds)
            except InferenceServerException as error:
                if "in use" in error.message():
                    continue
            except ValueError:  # the client is closed: there is nobody to tell
                pass
            with self._lock:
                self._known.discard(name)
                self._spoilt.discard(name)


def _make(size: int) -> SharedMemory:
    try:
        region = SharedMemory(PREFIX + secrets.token_hex(16), create=True, size=size)
        try:
            with open(f"/dev/shm/{region.name}", "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # else writing where there is no room would kill the process
        except OSError:
            region.unlink()
            raise
    except OSError as error:
        raise Refused(f"no {size >> 20} MiB of shared memory to be had: {error.strerror}") from None
    return region


def _may_pass(error: InferenceServerException) -> bool:
    """Whether the server was not there, rather than unwilling."""
    status = (error.status() or "").removeprefix("StatusCode.")
    return status in ("UNAVAILABLE", "DEADLINE_EXCEEDED") and "restricted" not in error.message()

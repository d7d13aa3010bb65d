"""Threads of which the one that was free last is asked first."""

import threading
import traceback
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias

Work: TypeAlias = tuple[Callable[..., None], tuple[Any, ...]]
Mailbox: TypeAlias = SimpleQueue[Work | None]


class Threads:
    """Do what is submitted, in the order in which it came.

    The threads of a ThreadPoolExecutor take turns. Here one goes on where it has just worked, with its core's caches
    full of the network, and the network's own threads stay on the other cores: a single caller is answered up to a
    tenth sooner.
    """

    def __init__(self, most: int) -> None:
        """most: threads at most; they are started when they are needed."""
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[Work] = deque()
        self._free: list[Mailbox] = []  # of threads that wait, the last one last
        self._threads: list[tuple[threading.Thread, Mailbox]] = []

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have it done; what it raises is printed."""
        with self._lock:
            if self._free:
                mailbox = self._free.pop()
            elif len(self._threads) < self._most:
                mailbox = self._start()
            else:
                self._waiting.append((work, arguments))
                return
        mailbox.put((work, arguments))

    def shutdown(self) -> None:
        """Return when all that was submitted is done; nothing may be submitted from now on."""
        for _, mailbox in self._threads:
            mailbox.put(None)
        for thread, _ in self._threads:
            thread.join()

    def _start(self) -> Mailbox:
        mailbox: Mailbox = SimpleQueue()
        thread = threading.Thread(target=self._run, args=(mailbox,), daemon=True)
        self._threads.append((thread, mailbox))
        thread.start()
        return mailbox

    def _run(self, mailbox: Mailbox) -> None:
        task = mailbox.get()
        while task is not None:
            work, arguments = task
            try:
                work(*arguments)
            except Exception:
                traceback.print_exc()
            del task, work, arguments  # a request's picture is not kept until the next one comes
            task = self._next(mailbox) or mailbox.get()

    def _next(self, mailbox: Mailbox) -> Work | None:
        """What waits; if nothing does, the thread is free."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._free.append(mailbox)
            return None

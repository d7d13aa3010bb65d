"""What a Triton process writes: kept, shown where it is wanted, and searched for what went wrong."""

import re
import threading
import time
from collections import deque
from typing import IO

from serve.log import Log, collapse

KEPT = 2_000  # lines
LONGEST = 300  # characters of what is quoted in an error
IN_THE_LOG = r"[IWEF]\d{4} |Error: Failed to initialize NVML"
NO_GPU = ("CudaDriverHelper", "unable to create stream", "pinned system memory")  # logged wherever there is none


class TritonLog:
    """The log of one process.

    shown: whether the lines that come now go to `log`, but for complaints that there is no GPU; with `verbose` all do.
    """

    def __init__(self, log: Log, verbose: bool) -> None:
        self.shown = False
        self.lines: deque[str] = deque(maxlen=KEPT)
        self._log, self._verbose = log, verbose

    def follow(self, output: IO[str]) -> None:
        """Read the process's output to its end, in a thread."""
        threading.Thread(target=self._read, args=[output], daemon=True).start()

    def first_error(self) -> str | None:
        """In one line, without time and source; a model that does not load comes before all others."""
        time.sleep(0.2)  # let the last lines arrive
        errors = [line for line in self.lines if re.match(r"E\d{4} ", line)]
        failed = [line for line in errors if "failed to load" in line or "failed to start" in line] or errors
        failed += [line for line in self.lines if re.match(r"Bad option|unknown|\S+: unrecognized option", line)]
        if not failed:
            return None
        error = re.sub(r"^E\d{4} \S+ +\d+ \S+\] +", "", failed[0]).strip('" ')
        return error.split("\\n\\nAt:")[0]  # without the traceback

    def last_words(self) -> str:
        """What a process that aborted said outside its log, in one line: an exception, a complaint of the allocator."""
        said = [line for line in self.lines if not re.match(IN_THE_LOG, line)]
        return " ".join(" ".join(said).split())[:LONGEST]

    def _read(self, output: IO[str]) -> None:
        for line in collapse(map(str.rstrip, output)):
            expected = any(complaint in line for complaint in NO_GPU)
            if not expected:
                self.lines.append(line)
            if self._verbose or (self.shown and not expected):
                self._log.triton(line)

"""The server's messages and this package's own, on standard error: as they are, or one JSON object a line."""

import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "fatal"}
AGAIN = 60.0  # seconds until the same line is shown anew
_LINE = re.compile(r"(?P<level>[IWEF])\d{4} (?P<clock>\S+) \d+ (?P<source>\S+)\] (?P<message>.*)")
_REQUEST = re.compile(r"\[request id: (?P<request_id>[^\]]*)\] ?(?:<id_unknown> ?)?")


def collapse(lines: Iterable[str]) -> Iterator[str]:
    """A line that comes again and again only once a minute, with how often it came: without a free file descriptor
    Triton's HTTP writes megabytes a second."""
    former, more, shown = "", 0, 0.0
    for line in lines:
        if line == former and time.monotonic() - shown < AGAIN:
            more += 1
            continue
        if more:
            yield f"the line before came {more:,} more times"
        former, more, shown = line, 0, time.monotonic()
        yield line


class Log:
    """Writes lines; threads may share it."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._lock = threading.Lock()

    def event(self, level: str, message: str, **facts: object) -> None:
        """Something that this package did or saw; facts: further fields of the JSON object."""
        if self.as_json:
            self._write_object(level, "serve", message, facts)
        else:
            self._write(f"python -m serve: {message}")

    def triton(self, line: str) -> None:
        """A line that the server wrote."""
        if not self.as_json:
            self._write(line)
            return
        found = _LINE.fullmatch(line)
        if found is None:
            self._write_object("info", "triton", line, {})
            return
        message, facts = found["message"], {"source": found["source"]}
        if message.startswith('"') and message.endswith('"'):
            message = message[1:-1].replace('\\"', '"').replace("\\n", "\n")
        if request := _REQUEST.search(message):
            facts["request_id"] = request["request_id"]
        self._write_object(LEVELS[found["level"]], "triton", message, facts)

    def _write_object(self, level: str, origin: str, message: str, facts: dict) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._write(json.dumps({"time": now, "level": level, "from": origin, "message": message, **facts}))

    def _write(self, line: str) -> None:
        """A server lives on where nobody reads what it says: the reader has left, or the disk is full."""
        with self._lock, contextlib.suppress(OSError):
            if sys.stderr is not None:  # as where the shell has closed it
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()

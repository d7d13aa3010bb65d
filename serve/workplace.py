"""The folder that a server works in, and what else it leaves on a machine: removed at its end or, where it was killed
together with its owner, at the next start."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PREFIX = "gin-serve-"
LOCK = "lock"  # held by every process of the server: Linux frees it when the last of them has died
RECORD = "server.json"
NOTES = "notes"  # of other processes, for the server's log
SETTLED = 60.0  # seconds after which a folder without a record is one whose owner was killed while making it
_ENVIRONMENTS = Path("/tmp")  # where Triton's Python backend makes an empty python_env_XXXXXX, whatever TMPDIR says


class Workplace:
    """A new folder that only its owner may read. What former servers of this user left is removed first."""

    def __init__(self) -> None:
        remove_leftovers()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        self.shared_memory = f"gin_{os.getpid()}_{secrets.token_hex(4)}_"  # how its regions' names begin
        self.lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self._others = set(_environments())
        self._facts: dict[str, Any] = {}
        self._noted = 0  # bytes of the notes that were taken
        try:
            self.record()
        except OSError:
            self.remove()
            raise

    def record(self, **facts: Any) -> None:
        """Say more about the server to those who look for running ones: see `running`."""
        mine = sorted(str(path) for path in set(_environments()) - self._others)
        self._facts |= facts | {"shared_memory": self.shared_memory, "environments": mine}
        staged = self.path / f"{RECORD}.new"
        staged.write_text(json.dumps(self._facts), encoding="utf-8")  # nobody else may enter the folder
        os.replace(staged, self.path / RECORD)

    def take_notes(self) -> list[str]:
        """What other processes left for the log since the last call."""
        try:
            with open(self.path / NOTES, "rb") as file:
                file.seek(self._noted)
                lines = file.readlines()
                self._noted = file.tell()
        except OSError:
            return []
        return [line.decode(errors="replace").rstrip("\n") for line in lines]

    def remove(self) -> None:
        """Remove the folder and all that the server made, ready or not. Its processes must have ended."""
        with contextlib.suppress(OSError):
            self.record()
        _remove(self.path)
        with contextlib.suppress(OSError):
            os.close(self.lock)


def running() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and record of each server of this user that is alive, as far as TMPDIR is the same."""
    for folder in _folders():
        if (facts := _facts_of(folder)) and _is_alive(folder):
            yield folder, facts


def leave_note(folder: Path, text: str) -> None:
    """Have the server that works in a folder say this in its log, unless it has ended or the disk is full."""
    with contextlib.suppress(OSError), open(folder / NOTES, "a", encoding="utf-8", errors="replace") as file:
        file.write(" ".join(text.split("\n")) + "\n")


def remove_leftovers() -> None:
    """Remove what is left of this user's servers that were killed with their owners."""
    for folder in _folders():
        with contextlib.suppress(FileNotFoundError):  # another server that starts now removes it too
            new = not _facts_of(folder) and time.time() - folder.stat().st_mtime < SETTLED
            if not new and not _is_alive(folder):
                _remove(folder)


def _folders() -> list[Path]:
    mine = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.getuid():
                mine.append(path)
    return mine


def _environments() -> list[Path]:
    return [path for path in _ENVIRONMENTS.glob("python_env_??????") if path.is_dir()]


def _facts_of(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return facts if isinstance(facts, dict) else {}
    except (OSError, ValueError):
        return {}


def _is_alive(folder: Path) -> bool:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _remove(folder: Path) -> None:
    facts = _facts_of(folder)
    spared = {path for other, more in running() if other != folder for path in more.get("environments", ())}
    for name in set(facts.get("environments", ())) - spared:
        with contextlib.suppress(OSError):
            os.rmdir(name)  # which takes empty folders only
    if facts.get("shared_memory"):
        for region in Path("/dev/shm").glob(f"{facts['shared_memory']}*"):
            region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)

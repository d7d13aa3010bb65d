"""A run's folder is one run's at a time: two would write their checkpoints over each other's."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"
TAKEN = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep the folder from other processes; it is made for that, and goes if nothing comes into it.

    Raises ValueError if another process has it.

    A record lock ends with its process, however that ends; what the process forks, such as those who load data, does
    not hold it on. On a file system without such locks nobody is kept away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in TAKEN:
                raise ValueError(f"another process trains into {folder}; out=DIR begins another run") from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()
                folder.rmdir()  # which takes an empty one only

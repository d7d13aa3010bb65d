"""What can go wrong with a server, beside a Triton that is not installed."""

from pathlib import Path


class ServerError(RuntimeError):
    """The server did not start or has died; the message names the cause."""


class CannotLoad(ServerError):
    """Triton refuses a version of a model. folder: of the version, in the repository."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(reason)
        self.folder = folder


class Crashed(ServerError):
    """Triton crashed before it was ready and said nothing in its log."""


class PortInUse(ServerError):
    """A port is taken, or the host is not an address of this machine."""


class Refused(ServerError):
    """What was asked for would expose the server or cannot be secured; the message says what to give instead."""


class RepositoryError(ValueError):
    """A repository that cannot be served; the message says what to do."""

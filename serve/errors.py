"""What can go wrong with a server, beside a repository that cannot be served and a Triton that is not installed."""


class ServerError(RuntimeError):
    """The server did not start or has died; the message names the cause."""


class PortInUse(ServerError):
    """A port is taken, or the host is not an address of this machine."""


class Refused(ServerError):
    """What was asked for would expose the server or cannot be secured; the message says what to give instead."""


class RepositoryError(ValueError):
    """A repository that cannot be served; the message says what to do."""

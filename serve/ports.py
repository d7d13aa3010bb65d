"""Addresses and ports to listen on."""

import contextlib
import errno
import random
import socket

from serve.errors import PortInUse

# Where free ports are looked for: from 32768 on Linux takes them for outgoing connections, and might before the server
# listens there, at its start or when it starts again.
FREE = range(20_000, 32_768)


def numeric(host: str) -> str:
    """IPv4 address of a host: Triton's HTTP takes no names, and would listen somewhere else. Raises PortInUse."""
    try:
        if not host:
            raise OSError(0, "no address given")  # the resolver would take it for every address
        return socket.gethostbyname(host)
    except (OSError, UnicodeError) as error:  # the latter of a name that is none
        raise PortInUse(f"cannot listen on {host!r}: {getattr(error, 'strerror', error)}") from None


def cannot_listen(host: str, port: int, option: str, error: OSError) -> PortInUse:
    """What to raise for a port that an option gave."""
    others = "; another server runs there already, or two options give it" if error.errno == errno.EADDRINUSE else ""
    return PortInUse(f"cannot listen on {host}:{port} ({option}): {error.strerror}{others}")


def claim(*wanted: tuple[str, int, str]) -> tuple[int, ...]:
    """Check that ports of hosts are free, and find free ones for those that are 0.

    wanted: host, port and the option that gave it. Raises PortInUse.
    """
    claimed = []
    with contextlib.ExitStack() as held:
        for host, port, option in wanted:
            try:
                listener = held.enter_context(_listener(host, [port] if port else random.sample(FREE, len(FREE))))
            except OSError as error:
                raise cannot_listen(host, port, option, error) from None
            claimed.append(listener.getsockname()[1])
    return tuple(claimed)


def _listener(host: str, ports: list[int]) -> socket.socket:
    """One that listens on the first of `ports` that is free. Raises OSError."""
    for port in ports:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen()  # or the same port could be claimed twice
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
            taken = error
    raise taken


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an IPv4 address."""
    return host.startswith("127.")


def reachable(host: str) -> str:
    """The address that a client on this machine connects to."""
    return "127.0.0.1" if host == "0.0.0.0" else host

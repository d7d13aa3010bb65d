"""Ports for what the tests start."""

from serve.ports import claim


def free_port() -> int:
    """A port that nothing listens on now."""
    return claim(("127.0.0.1", 0, "a test"))[0]

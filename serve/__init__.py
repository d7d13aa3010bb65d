"""Starts a Triton server on the model repository: `python -m serve`, or `serve.Server` from Python."""

from serve.server import Server, ServerError

__all__ = ["Server", "ServerError"]

"""Starts a Triton server on the model repository: `python -m serve`, or `serve.Server` from Python."""

from serve.errors import ServerError
from serve.server import Server

__all__ = ["Server", "ServerError"]

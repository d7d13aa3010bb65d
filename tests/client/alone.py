"""Code in a process of its own: one that forks must not have gRPC at work in it, as a process of many tests has."""

import subprocess
import sys

from tests.blocks import ROOT

BEGIN = """
import gc, os, signal, sys, threading, time
from client import Client, Unreachable
os.register_at_fork(after_in_child=lambda: signal.alarm(20))  # or one that hangs would be left
"""


def run_alone(code: str, *arguments: str) -> list[str]:
    """The lines that it prints. Fails if the code does, or takes half a minute."""
    words = [sys.executable, "-c", BEGIN + code, *arguments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

"""A reader at a terminal: types what a page says, block by block, and compares what is printed with what is shown."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.blocks import ROOT, Block, commands
from tests.ports import free_port

GRPC, HTTP, METRICS, HEALTH, PAGE = 8001, 8000, 8002, 8003, 7860  # what commands take unless told otherwise
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)")
_TIME = re.compile(r'"milliseconds": [\d.]+')


class Terminal:
    """Works in `folder`. A server that a page has started runs until another takes its place, or to the end.

    repository: what `python -m serve` serves. ports: others in the place of those that the commands take by themselves,
    so that tests disturb no server of the machine; those that are not named are chosen.
    """

    def __init__(self, folder: Path, repository: Path | None = None, ports: Mapping[int, int] | None = None) -> None:
        self._folder, self._repository = folder, repository
        self._ports = {port: free_port() for port in (GRPC, HTTP, METRICS, HEALTH, PAGE)} | dict(ports or {})
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
        self._running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.terminate()
            process.wait(60)

    def read(self, blocks: Iterable[Block]) -> int:
        """Execute blocks in their order; returns how many commands and programs that were. A block without a language
        is what the block before it prints."""
        count, printed = 0, ""
        for block in blocks:
            if block.language == "console":
                for words, shown in commands(block):
                    self._type(words, shown)
                    count += 1
            elif block.language in ("python", "bash"):
                printed = self._run([*PROGRAMS[block.language], self._here(block.text)], block.text)
                count += 1
            else:
                assert block.language == "", f"nobody knows how to run {block.language}"
                self._compare(block.text, printed, "the program above it")
        return count

    def _type(self, words: str, shown: str) -> None:
        command = self._here(words)
        if words.startswith("python -m serve"):
            ports = (f"{self._ports[port]}" for port in (GRPC, HTTP, METRICS, HEALTH))
            command += " --repository {} --grpc-port {} --http-port {} --metrics-port {} --health-port {}".format(
                self._repository, *ports
            )
        elif words.startswith("python -m client.web"):
            command += f" --port {self._ports[PAGE]}"
        if "python -m client" in words and "--url" not in words:
            command += f" --url 127.0.0.1:{self._ports[GRPC]}"
        if words.startswith(("python -m serve", "python -m client.web")):
            self._compare(shown, self._start(command), words)
        else:
            self._compare(shown, self._run(["bash", "-euo", "pipefail", "-c", command], words), words)

    def _start(self, command: str) -> str:
        """Start what does not end by itself, in the place of what the same module runs; what it says when ready."""
        module = command.split()[2]
        if (former := self._running.pop(module, None)) is not None:
            former.send_signal(signal.SIGINT)
            assert former.wait(60) == 0
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running[module] = process
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("ready: "), command
        return said

    def _run(self, program: list[str], words: str) -> str:
        done = subprocess.run(
            program, cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _here(self, text: str) -> str:
        """A text of the page with this terminal's ports."""
        return re.sub(r"(?<=:)\d{4}\b", lambda port: str(self._ports.get(int(port[0]), port[0])), text)

    def _compare(self, shown: str, said: str, words: str) -> None:
        if shown:
            compare(self._here(shown), said, words)


def compare(shown: str, said: str, words: str) -> None:
    """Fails, naming `words`, unless `said` is the text that is shown.

    Numbers may differ by two in the last place that is shown, and times may be any.
    """
    expected, got = (_NUMBER.split(_TIME.sub('"milliseconds":', text.rstrip())) for text in (shown, said))
    assert got[::2] == expected[::2], f"{words}\n{said}"
    for there, here in zip(expected[1::2], got[1::2], strict=True):
        digits = len(there.partition(".")[2])
        tolerance = 2.01 * 10**-digits if digits else 0
        assert float(here) == pytest.approx(float(there), abs=tolerance), f"{words}\n{said}"


PROGRAMS = {"python": [sys.executable, "-c"], "bash": ["bash", "-euc"]}

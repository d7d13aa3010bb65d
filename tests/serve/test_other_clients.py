"""The calls in docs/operating.md that need no client of this project work as they are written there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from client.library import Client
from serve import Server
from tests.blocks import blocks

SNIPPETS = [block for block in blocks("docs/operating.md") if block.language in ("bash", "python")]


@pytest.mark.parametrize(("language", "code"), SNIPPETS)
def test_snippet(server: Server, client: Client, jpeg: bytes, tmp_path: Path, language: str, code: str) -> None:
    """Each prints the box that the project's own client gets."""
    assert len(SNIPPETS) == 3
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    code = code.replace("127.0.0.1:8000", f"127.0.0.1:{server.http_port}")
    code = code.replace("127.0.0.1:8001", f"127.0.0.1:{server.grpc_port}")
    program = ["bash", "-euc"] if language == "bash" else [sys.executable, "-c"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*program, code], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.partition('"BOX"')[2] or done.stdout  # outputs come in any order
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d+", said)]
    assert numbers[:4] == pytest.approx(client.ground(jpeg, "the red circle")[0].box, abs=1e-3)

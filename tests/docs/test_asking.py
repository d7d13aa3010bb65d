"""docs/asking.md and what the README says about asking: whatever stands there to be typed works, and prints that."""

import shutil
from pathlib import Path

from serve import Server
from tests.blocks import ROOT, blocks, commands
from tests.docs.terminal import GRPC, Terminal


def test_guide(repository: Path, tmp_path: Path) -> None:
    """From top to bottom, in a folder that has of the project only what the guide takes from it."""
    (tmp_path / "client").symlink_to(ROOT / "client")
    with Terminal(tmp_path, repository) as terminal:
        assert terminal.read(blocks("docs/asking.md")) > 20


def test_readme(server: Server, tmp_path: Path) -> None:
    """What needs no more than `make demo` has left: commands whose answers are shown, and the snippet."""
    (tmp_path / "client").symlink_to(ROOT / "client")
    (tmp_path / "demo").mkdir()
    shutil.copy(ROOT / "client" / "examples" / "triangles.jpg", tmp_path / "demo" / "picture.jpg")
    section = blocks("README.md", "**Ask.**", "**Measure.**")
    answered = [b for b in section if b.language == "python" or any(shown for _, shown in commands(b))]
    with Terminal(tmp_path, ports={GRPC: server.grpc_port}) as terminal:
        assert terminal.read(answered) >= 2
    assert (tmp_path / "answer.png").stat().st_size > 0

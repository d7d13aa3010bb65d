"""The operations that the documentation names are those that the network has."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The script."""
    command = [sys.executable, "benchmarks/operations.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_record_holds(tmp_path: Path) -> None:
    """Counting again gives the committed numbers."""
    done = run("--record", tmp_path / "new" / "operations.json")
    assert done.returncode == 0, done.stderr
    counted, committed = (
        json.loads((folder / "operations.json").read_text())
        for folder in (tmp_path / "new", ROOT / "benchmarks" / "results")
    )
    assert counted["multiply_accumulates"] == committed["multiply_accumulates"]


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    """It is named before anything is measured."""
    (tmp_path / "file").touch()
    done = run("--size", 100, "--record", tmp_path / "file" / "operations.json")
    assert done.returncode == 2
    assert "must be a multiple of 32" in done.stderr
    done = run("--record", tmp_path / "file" / "operations.json")
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr

"""Where exported files go, written whole or not at all."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from export.parity import ParityError
from model.checkpoint import Checkpoint

REPOSITORY = Path(__file__).parent.parent / "triton_repo"


def place(path: Path, write: Callable[[Path], Any]) -> Any:
    """Let `write` make a file under a temporary name beside `path`, then rename it; returns what `write` returns.

    If `write` raises, nothing is left and a former file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        result = write(temporary)
        temporary.chmod(0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return result


def place_report(path: Path, report: dict[str, Any]) -> None:
    """Write a parity report as JSON."""
    place(path, lambda temporary: temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8"))


def run_export(
    argv: Sequence[str] | None, program: str, description: str, export: Callable[[Checkpoint, Path], dict[str, Any]]
) -> int:
    """The command line that the exports share; returns the exit code."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint of this project")
    where = "Triton model repository (default: %(default)s)"
    parser.add_argument("--repository", type=Path, default=REPOSITORY, metavar="DIR", help=where)
    arguments = parser.parse_args(argv)
    try:
        report = export(Checkpoint.load(arguments.checkpoint), arguments.repository)
    except (OSError, ValueError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except ParityError as error:
        print(f"{program}: {error}; nothing was written", file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0

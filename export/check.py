"""Verify exported files against their manifest, before anything else opens them.

    python -m export.check DIR

DIR is what an export wrote: its --out folder or a Triton repository. First every file's SHA-256, so that nothing
rotten, tampered or half-replaced is ever opened, and that a repository's versions hold no other files; then that all
come from one checkpoint; then the recorded questions.
Prints a line of JSON per manifest. Exit code 1 says that something does not hold, and names it.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.formats import Format, first_line
from export.manifest import MANIFEST, InvalidExport, is_version, load_questions, read_manifest, read_version
from export.parity import Comparison, Limits, ParityError, check_report
from model.command import run_command

KINDS = ("onnx", "torchscript", "aot")


def verify(folder: Path) -> list[dict[str, Any]]:
    """Verify a folder and return what holds, per manifest. Raises InvalidExport, ParityError or OSError.

    Older versions of a model may be of other checkpoints; the newest of all models must be of one.
    """
    if not folder.is_dir():
        raise InvalidExport(f"there is no folder {folder}")
    folders = sorted(filter(is_version, folder.glob("*/*")))
    if (folder / MANIFEST).exists():
        folders.insert(0, folder)
    if not folders:
        raise InvalidExport(f"{folder} has no {MANIFEST}, nor a model with a version")
    manifests = {path: _read(path) for path in folders}  # all hashes, before any file is opened
    newest = {path.parent: path for path in sorted(manifests, key=lambda path: (len(path.name), path.name))}
    first, *others = newest.values()
    for path in others:
        if manifests[path]["checkpoint"] != manifests[first]["checkpoint"]:
            raise InvalidExport(f"{path} and {first} were exported from different checkpoints")
    return [{"folder": str(path), **_ask(path, manifest)} for path, manifest in manifests.items()]


def _read(folder: Path) -> dict[str, Any]:
    return (read_version if is_version(folder.absolute()) else read_manifest)(folder)


def _ask(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Ask the graphs their recorded questions."""
    kind = _format(manifest["kind"])
    try:
        limits, parity = Limits(**manifest["limits"]), {}
    except (TypeError, ValueError):
        raise InvalidExport(f"{folder / MANIFEST} is damaged: its limits are {manifest['limits']}") from None
    for name, graph in manifest["graphs"].items():
        path, comparison = folder / graph["file"], Comparison()
        try:
            run = kind.open(path, graph["inputs"], graph["outputs"])
            for inputs, expected in load_questions(folder / graph["questions"]):
                comparison.add(expected, run(inputs))
            parity[name] = comparison.report()
            check_report(parity[name], limits)
        except ParityError as error:
            raise ParityError(f"{path}: {error}") from None
        except OSError:
            raise
        except Exception as error:  # of a runtime, or where what the manifest says of the file is not so
            raise InvalidExport(f"{path} does not answer its recorded questions: {first_line(error)}") from None
    facts = {name: manifest[name] for name in ("kind", "checkpoint", "precision", "image_size")}
    return facts | {"files": sorted(manifest["files"]), "parity": parity}


def _format(kind: str) -> Format:
    if kind not in KINDS:
        raise InvalidExport(f"the manifest is of kind {kind!r}; known: {', '.join(KINDS)}")
    return importlib.import_module(f"export.{kind}").FORMAT  # so that checking ONNX needs nothing of the others


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m export.check", description="Verify exported files.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="what an export wrote, or a Triton repository")
    arguments = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _print_verified(arguments.folder), InvalidExport, ParityError)


def _print_verified(folder: Path) -> None:
    for line in verify(folder):
        print(json.dumps(line))


if __name__ == "__main__":
    sys.exit(main())

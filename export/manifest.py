"""The manifest beside exported files: what they are, their hashes, and how near to the checkpoint they answer."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "gin-export-1"
MANIFEST = "manifest.json"
LEFT_BY_SERVERS = ("__pycache__",)  # by a bare Triton, beside model.py, where the folder can be written
FACTS = {"kind", "checkpoint", "precision", "image_size", "limits"}  # that checking needs


class InvalidExport(ValueError):
    """Exported files that are not to be trusted; the message names the file and the cause."""


def is_version(folder: Path) -> bool:
    """Whether a folder has the name of a model's version, which is a number."""
    return folder.name.isascii() and folder.name.isdigit()  # such as ² is a digit and no number


def hash_file(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, facts: Mapping[str, Any], graphs: Mapping[str, Any]) -> None:
    """Describe all files of a folder. graphs: of each graph by name its `file`, `questions` and `parity`."""
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    manifest = {"format": FORMAT, **facts, "graphs": graphs, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files all have their hashes; nothing but bytes is read of them.

    Raises InvalidExport naming the file that is missing or other than it was, or OSError.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InvalidExport(f"{folder} has no {MANIFEST}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise InvalidExport(f"{path} has format {manifest['format']!r}; this version reads {FORMAT!r}")
        _check_files(path, manifest["files"])
        _check_facts(path, manifest)
    except InvalidExport:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:  # the last of deep nesting
        raise InvalidExport(f"{path} is damaged: {error!r}") from None
    return manifest


def _check_files(path: Path, files: Mapping[str, str]) -> None:
    """Compare the files beside a manifest with their hashes."""
    for name, expected in files.items():
        if Path(name).name != name:
            raise InvalidExport(f"{path} names {name!r}, which is not a file of its folder")
        if not (path.parent / name).is_file():
            raise InvalidExport(f"{path.parent / name} does not exist")
        if hash_file(path.parent / name) != expected:
            raise InvalidExport(f"{path.parent / name} is not the file that was exported: its SHA-256 differs")


def _check_facts(path: Path, manifest: Mapping[str, Any]) -> None:
    """Whether a manifest says all that checking its graphs needs."""
    if missing := FACTS - manifest.keys():
        raise InvalidExport(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    for graph in manifest["graphs"].values():
        if missing := {"inputs", "outputs"} - graph.keys():
            raise InvalidExport(f"{path} is damaged: a graph lacks {', '.join(sorted(missing))}")
        if not {graph["file"], graph["questions"]} <= manifest["files"].keys():
            raise InvalidExport(f"{path} names a graph whose files have no hash")


def read_version(folder: Path) -> dict[str, Any]:
    """The manifest of a version of a served model, beside whose files there must be no others: a server would find
    them. Raises as `read_manifest` does."""
    manifest = read_manifest(folder)
    others = {path.name for path in folder.iterdir()} - manifest["files"].keys() - {MANIFEST, *LEFT_BY_SERVERS}
    if others:
        raise InvalidExport(f"{folder / min(others)} was not exported: {MANIFEST} beside it does not name it")
    return manifest


def named_files(folder: Path) -> set[str]:
    """The names of files in a folder's manifest, whatever has become of them; none without a manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return set(manifest["files"]) if manifest["format"] == FORMAT else set()
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return set()


Recorded = list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]  # inputs and expected outputs by name


def save_questions(path: Path, questions: Recorded) -> None:
    """Write recorded questions as an .npz file."""
    flat = {
        f"{number}.{kind}.{name}": array
        for number, (inputs, outputs) in enumerate(questions)
        for kind, arrays in (("input", inputs), ("output", outputs))
        for name, array in arrays.items()
    }
    np.savez_compressed(path, **flat)  # type: ignore[arg-type]


def load_questions(path: Path) -> Recorded:
    """Read what `save_questions` wrote; nothing in it is executed."""
    questions: Recorded = []
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            number, kind, name = key.split(".")
            while len(questions) <= int(number):
                questions.append(({}, {}))
            questions[int(number)][kind == "output"][name] = file[key]
    return questions

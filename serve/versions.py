"""What a server is shown of a repository: links to the files that were exported, of the versions where all of them are
still the same.

A server that only sees what was verified can load, reload and start again at any time without serving anything else.
Nothing that lies beside those files is shown: compiled Python code there would be run in the place of model.py.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from serve.errors import RepositoryError

MANIFEST = "manifest.json"
FORMAT = "gin-export-1"


def verify(version: Path) -> None:
    """Compare the files of a version folder with the hashes in their manifest; only bytes are read of them.

    Raises RepositoryError naming the file that is missing or other than it was.
    """
    path = version / MANIFEST
    try:
        if not path.is_file():
            raise RepositoryError(f"{version} has no {MANIFEST}; export the network again")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known, files = manifest["format"], dict(manifest["files"])
        if known != FORMAT:
            raise RepositoryError(f"{path} has format {known!r}; this version reads {FORMAT!r}")
        for name, expected in files.items():
            if Path(name).name != name:
                raise RepositoryError(f"{path} names {name!r}, which is not a file of its folder")
            with open(version / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise RepositoryError(f"{version / name} is not the file that was exported: its SHA-256 differs")
    except RepositoryError:
        raise
    except OSError as error:
        raise RepositoryError(f"{error.filename or path} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:  # the last of deep nesting
        raise RepositoryError(f"{path} is damaged: {error!r}") from None


Refusals = Mapping[str, str]  # version folders, with the reason
NONE: Refusals = {}


def split_versions(model: Path, unloadable: Refusals = NONE) -> tuple[list[Path], dict[str, str]]:
    """The version folders of a model that verify, the newest last, and those that do not, with the reason.

    unloadable: of any models, those that are known not to load though they verify. Raises RepositoryError for a folder
    that cannot be looked into.
    """
    good: list[Path] = []
    refused: dict[str, str] = {}
    for entry in sorted(numbered(model), key=lambda entry: int(entry.name)):
        try:
            if str(entry) in unloadable:
                raise RepositoryError(unloadable[str(entry)])
            verify(entry)
            good.append(entry)
        except RepositoryError as error:
            refused[str(entry)] = str(error)
    return good, refused


def numbered(model: Path) -> list[Path]:
    """The version folders of a model. Raises RepositoryError."""
    try:
        return [entry for entry in model.iterdir() if _is_number(entry.name)]
    except OSError as error:
        raise RepositoryError(f"{model} cannot be read: {error.strerror}") from None


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()  # such as ² is a digit and no number


def link_models(repository: Path, names: Iterable[str], view: Path, unloadable: Refusals = NONE) -> dict[str, str]:
    """Show the named models in the folder `view`, or bring what is shown there up to date.

    Returns the version folders that are not shown, with the reason. Raises RepositoryError for a model all of whose
    versions are refused.
    """
    refused: dict[str, str] = {}
    for name in names:
        good, reasons = split_versions(repository / name, unloadable)
        if not good:
            _link({}, view / name)
            why = "; ".join(reasons.values()) or f"{repository / name} holds none"
            raise RepositoryError(f"model {name!r} has no version to serve: {why}")
        others = [entry for entry in (repository / name).iterdir() if not _is_number(entry.name)]
        _link({entry.name: entry for entry in others}, view / name, keep={version.name for version in good})
        for version in good:
            files = (MANIFEST, *json.loads((version / MANIFEST).read_text(encoding="utf-8"))["files"])
            _link({file: version / file for file in files}, view / name / version.name, keep={"__pycache__"})
        refused |= reasons
    return refused


def _link(wanted: Mapping[str, Path], folder: Path, keep: Container[str] = ()) -> None:
    """Have a folder hold these links, and of what it holds already only what is to be kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for shown in folder.iterdir():
        if shown.is_dir() and not shown.is_symlink():
            if shown.name not in keep:
                shutil.rmtree(shown)
        elif shown.name not in wanted:
            shown.unlink()
    for name, target in wanted.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(target, folder / name)

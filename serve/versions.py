"""What a server is shown of a repository: links to the versions whose files are the ones that were exported.

A server that only sees what was verified can load, reload and start again at any time without serving anything else.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from serve.errors import RepositoryError

MANIFEST = "manifest.json"
FORMAT = "gin-export-1"


def verify(version: Path) -> None:
    """Compare the files of a version folder with the hashes in their manifest; only bytes are read of them.

    Raises RepositoryError naming the file that is missing or other than it was.
    """
    path = version / MANIFEST
    if not path.is_file():
        raise RepositoryError(f"{version} has no {MANIFEST}; export the network again")
    try:
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
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RepositoryError(f"{path} is damaged: {error!r}") from None


def split_versions(model: Path) -> tuple[list[Path], dict[str, str]]:
    """The version folders of a model that verify, and those that do not, with the reason."""
    good: list[Path] = []
    refused: dict[str, str] = {}
    for entry in sorted(model.iterdir()):
        if entry.name.isdigit():
            try:
                verify(entry)
                good.append(entry)
            except RepositoryError as error:
                refused[str(entry)] = str(error)
    return good, refused


def link_models(repository: Path, names: Iterable[str], view: Path) -> dict[str, str]:
    """Show the named models in the folder `view`, or bring what is shown there up to date.

    Returns the version folders that are not shown, with the reason. Raises RepositoryError for a model all of whose
    versions are refused.
    """
    refused: dict[str, str] = {}
    for name in names:
        good, reasons = split_versions(repository / name)
        if not good:
            _link({}, view / name)
            raise RepositoryError(f"model {name!r} has no version to serve: {'; '.join(reasons.values())}")
        others = [entry for entry in (repository / name).iterdir() if not entry.name.isdigit()]
        _link({entry.name: entry for entry in (*good, *others)}, view / name)
        refused |= reasons
    return refused


def _link(wanted: dict[str, Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shown in folder.iterdir():
        if shown.name not in wanted:
            shown.unlink()
    for name, target in wanted.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(target, folder / name)

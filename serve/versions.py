"""What a server is shown of a repository: links to the versions whose files are the ones that were exported.

A server that only sees what was verified can load, reload and start again at any time without serving anything else.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from serve.repository import RepositoryError

MANIFEST = "manifest.json"
FORMAT = "gin-export-1"
EXPORTED = ("model.onnx", "model.pt", "vocabulary.json")  # files that only an export writes


def verify(version: Path) -> None:
    """Compare the exported files of a version folder with the hashes in their manifest; only bytes are read of them.

    Raises RepositoryError naming the file that is missing, unknown to the manifest or other than it was.
    """
    path, exported = version / MANIFEST, {name for name in EXPORTED if (version / name).is_file()}
    if not path.is_file():
        if exported:
            raise RepositoryError(f"{version / min(exported)} has no {MANIFEST} beside it; export the network again")
        return
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known, files = manifest["format"], dict(manifest["files"])
        if known != FORMAT:
            raise RepositoryError(f"{path} has format {known!r}; this version reads {FORMAT!r}")
        if unknown := exported - files.keys():
            raise RepositoryError(f"{version / min(unknown)} is not in {MANIFEST}; export the network again")
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


def link_models(repository: Path, names: Iterable[str], view: Path) -> dict[str, str]:
    """Show the named models in the folder `view`, or bring what is shown there up to date.

    Returns the version folders that are not shown, with the reason. Raises RepositoryError for a model all of whose
    versions are refused.
    """
    refused: dict[str, str] = {}
    for name in names:
        wanted: dict[str, Path] = {}
        reasons: dict[str, str] = {}
        for entry in (repository / name).iterdir():
            try:
                if entry.name.isdigit():
                    verify(entry)
                wanted[entry.name] = entry
            except RepositoryError as error:
                reasons[str(entry)] = str(error)
        if reasons and not any(entry.isdigit() for entry in wanted):
            raise RepositoryError(f"model {name!r} has no version to serve: {'; '.join(reasons.values())}")
        _link(wanted, view / name)
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

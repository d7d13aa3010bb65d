"""Where exported files go: into a folder or into a Triton repository, whole or not at all, one export at a time."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.configurations import ENTRY, update_configuration
from export.formats import Format
from export.manifest import MANIFEST, InvalidExport, is_version, named_files, read_manifest, write_manifest
from export.progress import say

STAGING = ".export-"


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A folder inside `target` for files that are not to be believed yet; it is removed at the end, and what a killed
    export left behind with it. Of several exports into `target` one waits for the other."""
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        for leftover in target.glob(f"{STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=target, prefix=STAGING))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder itself, so that no file of a lock is left in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another export into {folder}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system that locks no folders, such as NFS; there nobody waits
            pass
        yield
    finally:
        os.close(handle)


def publish(folder: Path, target: Path) -> None:
    """Move all files of a staged folder into `target`, the manifest last, and remove what the former manifest named and
    this one does not. Killed in between, the former manifest names files that are gone or others by now."""
    target.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()} - {MANIFEST}
    stale = named_files(target) - names
    for name in sorted(names):
        os.replace(folder / name, target / name)
    for path in target.iterdir():
        if path.name in stale and path.is_file():
            path.unlink()
    os.replace(folder / MANIFEST, target / MANIFEST)


def publish_models(folder: Path, report: dict[str, Any], kind: Format, repository: Path) -> list[Path]:
    """Make the staged files a new version of the models of a Triton repository that serve them; returns where they are.

    Of older versions the last good one is kept, and so is a configuration that somebody edited. A version appears whole
    or not at all.
    """
    facts = {name: value for name, value in report.items() if name != "graphs"}
    suffix = "" if report["precision"] == "fp32" else f"_{report['precision']}"
    places = []
    for model, parts in kind.models.items():
        staged = folder / model
        staged.mkdir()
        graphs = {}
        for part, name in parts.items():
            if part in report["graphs"]:
                served = {"file": f"{name}{kind.suffix}", "questions": f"{name}.questions.npz"}
                graphs[part] = report["graphs"][part] | served
                shutil.copyfile(folder / report["graphs"][part]["questions"], staged / served["questions"])
                os.replace(folder / report["graphs"][part]["file"], staged / served["file"])
            elif (folder / part).exists():
                os.replace(folder / part, staged / name)
        if model == "gin":
            (staged / "model.py").write_text(ENTRY, encoding="utf-8")
        write_manifest(staged, facts, graphs)
        update_configuration(repository / f"{model}{suffix}", model, report["image_size"])
        places.append(add_version(staged, repository / f"{model}{suffix}"))
    return places


def add_version(staged: Path, model: Path) -> Path:
    """Make a folder the newest version of a model. All others but the last whose files verify take its place beside
    other staged files, to be removed with them: so each is there whole or not at all, even where a server left in it
    what only the server's user may remove."""
    versions = sorted(filter(is_version, model.iterdir()), key=lambda path: int(path.name))
    newest = model / str(int(versions[-1].name) + 1 if versions else 1)
    os.replace(staged, newest)
    good = next((path for path in reversed(versions) if _verifies(path)), None)
    for path in versions:
        if path != good:
            os.replace(path, staged.with_name(f"{model.name}.{path.name}"))
    return newest


def _verifies(version: Path) -> bool:
    try:
        read_manifest(version)
    except (InvalidExport, OSError):
        return False
    return True

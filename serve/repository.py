"""What a model repository holds, read from its folders and configurations."""

import re
from dataclasses import dataclass
from pathlib import Path

from export.manifest import InvalidExport, read_manifest
from serve.triton import backend_names

DEFAULT = Path(__file__).resolve().parent.parent / "triton_repo"
SERVED = "gin"  # the model that clients ask
EXPORT = "python -m export.onnx CHECKPOINT"


class RepositoryError(ValueError):
    """A repository that cannot be served; the message says what to do."""


@dataclass(frozen=True)
class Selection:
    """load: models to load. skipped: others, with the reason."""

    load: tuple[str, ...]
    skipped: dict[str, str]


def select_models(repository: Path) -> Selection:
    """The models that can be served here: each whose newest version is what was exported, by its manifest.

    Files are only read as bytes. Raises RepositoryError if `gin` is not among them.
    """
    if not repository.is_dir():
        raise RepositoryError(f"there is no model repository at {repository}")
    folders = sorted(path.parent for path in repository.glob("*/config.pbtxt"))
    skipped = {folder.name: reason for folder in folders if (reason := _obstacle(folder))}
    if repository / SERVED not in folders:
        raise RepositoryError(f"{repository} has no model {SERVED!r}")
    if SERVED in skipped:
        raise RepositoryError(f"model {SERVED!r} cannot be served: {skipped[SERVED]}")
    return Selection(tuple(folder.name for folder in folders if folder.name not in skipped), skipped)


def newest_version(model: Path) -> Path | None:
    """The folder of the version that Triton serves, if there is one."""
    versions = [path for path in model.iterdir() if path.name.isdigit()]
    return max(versions, key=lambda path: int(path.name), default=None)


def _obstacle(folder: Path) -> str:
    """Why a model cannot be loaded, or nothing."""
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    match = re.search(r'^\s*(?:backend|platform):\s*"([^"]+)"', config, re.MULTILINE)
    backend = match[1] if match else ""
    if backend not in backend_names():
        return f"its backend {backend!r} is not part of the pip-installed server"
    version = newest_version(folder)
    if version is None:
        return f"{folder} has no version; run `{EXPORT}`"
    try:
        read_manifest(version)
    except (InvalidExport, OSError) as error:
        return f"{error}; export it again, or remove {version} to serve the version before it"
    return ""

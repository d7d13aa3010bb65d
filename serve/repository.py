"""What a model repository holds, read from its folders and configurations."""

import re
from dataclasses import dataclass
from pathlib import Path

from serve.errors import RepositoryError
from serve.triton import backend_names
from serve.versions import NONE, Refusals, split_versions

DEFAULT = Path(__file__).resolve().parent.parent / "triton_repo"
SERVED = "gin"  # the model that clients ask


@dataclass(frozen=True)
class Selection:
    """load: models to load. skipped: others, with the reason."""

    load: tuple[str, ...]
    skipped: dict[str, str]


def select_models(repository: Path, unloadable: Refusals = NONE) -> Selection:
    """The models that can be served here: those with a version that is what was exported, by its manifest.

    unloadable: see `split_versions`. Files are only read as bytes. Raises RepositoryError if `gin` is not among them.
    """
    if not repository.is_dir():
        raise RepositoryError(f"there is no model repository at {repository}")
    folders = sorted(path.parent for path in repository.glob("*/config.pbtxt"))
    skipped = {folder.name: reason for folder in folders if (reason := _obstacle(folder, unloadable))}
    if repository / SERVED not in folders:
        raise RepositoryError(f"{repository} has no model {SERVED!r}")
    if SERVED in skipped:
        raise RepositoryError(f"model {SERVED!r} cannot be served: {skipped[SERVED]}")
    return Selection(tuple(folder.name for folder in folders if folder.name not in skipped), skipped)


def _obstacle(folder: Path, unloadable: Refusals) -> str:
    """Why a model cannot be loaded, or nothing."""
    try:
        config = (folder / "config.pbtxt").read_text(encoding="utf-8", errors="replace")
        good, refused = split_versions(folder, unloadable)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except RepositoryError as error:
        return str(error)
    match = re.search(r'^\s*(?:backend|platform):\s*"([^"]+)"', config, re.MULTILINE)
    backend = match[1] if match else ""
    if backend not in backend_names():
        return f"its backend {backend!r} is not part of the pip-installed server"
    if not good:
        return "; ".join(refused.values()) or f"{folder} has no version; run `python -m export.{_export(folder.name)}`"
    return ""


def _export(model: str) -> str:
    """Which export fills a model: its name says, with a precision at its end unless that is fp32."""
    kind = "torchscript" if model.startswith("gin_torchscript") else "onnx"
    precision = model.rpartition("_")[2]
    chosen = {"fp16": " --precision fp16", "bf16": " --precision bf16", "int8": " --precision int8 --calibration CSV"}
    return f"{kind} CHECKPOINT{chosen.get(precision, '')}"

"""What a model repository holds, read from its folders and configurations."""

import re
from dataclasses import dataclass
from pathlib import Path

from serve.triton import backend_names

DEFAULT = Path(__file__).resolve().parent.parent / "triton_repo"
SERVED = "gin"  # the model that clients ask
FILES = {  # what must lie in a version folder
    "onnxruntime": ("model.onnx",),
    "pytorch": ("model.pt",),
    "python": ("model.py",),
    "ensemble": (),
}
EXPORT = "python -m export.onnx CHECKPOINT"


class RepositoryError(ValueError):
    """A repository that cannot be served; the message says what to do."""


@dataclass(frozen=True)
class Selection:
    """load: models to load. skipped: others, with the reason."""

    load: tuple[str, ...]
    skipped: dict[str, str]


def select_models(repository: Path) -> Selection:
    """The models that can be served here. Raises RepositoryError if `gin` or a part of it is not among them."""
    if not repository.is_dir():
        raise RepositoryError(f"there is no model repository at {repository}")
    folders = sorted(path.parent for path in repository.glob("*/config.pbtxt"))
    skipped = {folder.name: reason for folder in folders if (reason := _obstacle(folder))}
    served = repository / SERVED / "config.pbtxt"
    if not served.is_file():
        raise RepositoryError(f"{repository} has no model {SERVED!r}")
    for name in (SERVED, *re.findall(r'model_name:\s*"([^"]+)"', served.read_text(encoding="utf-8"))):
        if not (repository / name / "config.pbtxt").is_file():
            raise RepositoryError(f"{repository} has no model {name!r}, which {SERVED!r} is made of")
        if name in skipped:
            raise RepositoryError(f"model {name!r} cannot be served: {skipped[name]}")
    return Selection(tuple(folder.name for folder in folders if folder.name not in skipped), skipped)


def _obstacle(folder: Path) -> str:
    """Why a model cannot be loaded, or nothing."""
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    match = re.search(r'^\s*(?:backend|platform):\s*"([^"]+)"', config, re.MULTILINE)
    backend = match[1] if match else ""
    if backend not in backend_names() | {"ensemble"}:
        return f"its backend {backend!r} is not part of the pip-installed server"
    versions = [path for path in folder.iterdir() if path.name.isdigit()]
    wanted = FILES.get(backend, ())
    if folder.name == "gin_prepare":
        wanted = (*wanted, "vocabulary.json")
    for name in wanted:
        if not any((version / name).is_file() for version in versions):
            return f"{folder / '1' / name} does not exist; run `{EXPORT}`"
    return ""

"""Checkpoints: one file with weights, configuration, vocabulary and what resuming needs; opening it runs nothing."""

import io
import os
import re
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig
from model.gin import GIN
from model.preparation import Preparation
from model.presence import Presence
from model.words import Vocabulary

FORMAT = "gin-1"
NAMED = 3  # weights that do not fit, in a message


class InvalidCheckpoint(ValueError):
    """A file that is not a checkpoint of this project; the message names the file and the cause."""


@dataclass(frozen=True)
class Checkpoint:
    """weights: the network's state. training: what resuming needs (plain data and tensors), if it was kept. presence:
    how to tell what is not there, once it has been calibrated."""

    config: ModelConfig
    vocabulary: Vocabulary
    weights: dict[str, Tensor]
    training: dict[str, Any] | None = None
    presence: Presence | None = None

    def network(self) -> GIN:
        """The network with these weights, on the CPU, in evaluation mode."""
        network = GIN(self.config, len(self.vocabulary))
        network.load_state_dict(self.weights)
        return network.eval()

    @property
    def preparation(self) -> Preparation:
        """Input preparation as this network was trained with."""
        config = self.config
        return Preparation(config.image_size, config.resize_filter, config.max_words, self.vocabulary)

    def save(self, path: str | Path) -> None:
        """Write atomically: the file is whole or, after a crash, still the previous one."""
        content = {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "vocabulary": list(self.vocabulary.words),
            "weights": self.weights,
            "training": self.training,
            "presence": asdict(self.presence) if self.presence else None,
        }
        save_atomically(content, Path(path))

    @classmethod
    def load(cls, path: str | Path, data: bytes | None = None) -> "Checkpoint":
        """Read a checkpoint. data: the file's bytes, if they have been read already. Raises InvalidCheckpoint,
        FileNotFoundError or IsADirectoryError."""
        content = load_plain(path, data)
        if content.get("format") != FORMAT:
            raise InvalidCheckpoint(
                f"{path} is not a checkpoint of this project (format {content.get('format')!r}, expected {FORMAT!r}); "
                "the original authors' checkpoints are turned into one by `python -m model.convert`"
            )
        try:
            config = ModelConfig.from_dict(content["config"])
            presence = Presence(**content["presence"]) if content.get("presence") else None
            vocabulary, weights = Vocabulary(content["vocabulary"]), content["weights"]
            with torch.device("meta"):  # names and shapes alone
                expected = GIN(config, len(vocabulary)).state_dict()
            _check_weights(weights, expected)
            return cls(config, vocabulary, weights, content["training"], presence)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InvalidCheckpoint(f"{path} is damaged: {error}") from None


def load_plain(path: str | Path, data: bytes | None = None) -> dict[str, Any]:
    """A dictionary of tensors and plain data from a `torch.save` file, without executing anything it names. data: the
    file's bytes, if they have been read already."""
    with open(path, "rb") if data is None else io.BytesIO(data) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the pickle of a file that is then refused
                content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, ValueError and others
            raise InvalidCheckpoint(f"{path} cannot be read as a checkpoint: {_unreadable(error)}") from None
    if not isinstance(content, dict):
        raise InvalidCheckpoint(f"{path} holds a {type(content).__name__}, not a checkpoint's dictionary")
    return content


def _unreadable(error: Exception) -> str:
    """What PyTorch found, without its advice to let the file run what it names."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return f"it names {named[1]}; only tensors and plain data are accepted"
    return "it is no file of torch.save, or one that is cut off or damaged"


def _check_weights(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise ValueError that names weights which are missing, unknown or of another shape than expected."""
    unfit = sorted(weights.keys() ^ expected.keys())
    unfit += [name for name in expected if name in weights and weights[name].shape != expected[name].shape]
    if unfit:
        named = ", ".join(unfit[:NAMED]) + (", ..." if len(unfit) > NAMED else "")
        raise ValueError(f"{len(unfit)} weights are missing, unknown or misshapen: {named}")


def save_atomically(content: Any, path: Path) -> None:
    """`torch.save` so that the file is whole or still the previous one. Raises OSError that says so."""
    serialised = io.BytesIO()
    torch.save(content, serialised)
    write_atomically(serialised.getbuffer(), path)


def write_atomically(data: bytes | memoryview, path: Path) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            kept = "the previous one is kept" if path.exists() else "nothing was written"
            raise OSError(error.errno, f"{path} could not be written ({error.strerror}); {kept}") from error
        raise
    _sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that a killed `write_atomically` of `path` left behind."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

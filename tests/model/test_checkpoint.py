"""Checkpoints: whole or refused, and opening one runs nothing."""

import pickle
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from model.checkpoint import Checkpoint, InvalidCheckpoint, save_atomically, write_atomically


def test_round_trip(checkpoint: Checkpoint, checkpoint_path: Path) -> None:
    """What was saved is loaded: configuration, vocabulary, weights."""
    loaded = Checkpoint.load(checkpoint_path)
    assert loaded.config == checkpoint.config
    assert loaded.vocabulary.words == checkpoint.vocabulary.words
    assert loaded.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(loaded.weights[name], weight) for name, weight in checkpoint.weights.items())


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_opening_runs_nothing(tmp_path: Path) -> None:
    """A file that would run code is refused, and the code does not run."""
    marker, path = tmp_path / "ran", tmp_path / "hostile.pth"
    for write, cause in (
        (lambda content: torch.save(content, path), "it names getattr; only"),
        (lambda content: path.write_bytes(pickle.dumps(content)), "no file of torch.save"),
    ):
        write({"format": "gin-1", "weights": Hostile(marker)})
        with pytest.raises(InvalidCheckpoint, match=f"hostile.pth.*{cause}") as refused:
            Checkpoint.load(path)
        assert "weights_only" not in str(refused.value)
        assert not marker.exists()


def test_what_is_not_a_checkpoint(checkpoint_path: Path, tmp_path: Path) -> None:
    """Text, a cut-off file, a bare tensor, another dictionary and weights that do not fit are refused by name, in one
    line of our own."""
    path = tmp_path / "wrong.pth"
    whole = torch.load(checkpoint_path, weights_only=True)
    weights = whole["weights"]
    first, *others = weights
    for write, cause in (
        (lambda: path.write_text("hello"), "no file of torch.save"),
        (lambda: path.write_bytes(b""), "cut off"),
        (lambda: path.write_bytes(checkpoint_path.read_bytes()[:5000]), "cut off"),
        (lambda: torch.save(torch.zeros(3), path), "holds a Tensor"),
        (lambda: torch.save({"model_state_dict": {}}, path), "python -m model.convert"),
        (lambda: torch.save(whole | {"weights": {name: weights[name] for name in others}}, path), f": {first}$"),
        (lambda: torch.save(whole | {"weights": weights | {first: torch.zeros(3)}}, path), f"misshapen: {first}$"),
        (lambda: torch.save(whole | {"weights": {}}, path), f"{len(weights)} weights are missing.*, [.]{{3}}$"),
        (lambda: torch.save(whole | {"config": {"depth": 3}}, path), "depth"),
        (lambda: torch.save(whole | {"config": []}, path), "damaged"),
        (lambda: torch.save(whole | {"config": whole["config"] | {"anchor_ratios": [0.0]}}, path), "anchor_ratios"),
    ):
        write()
        with pytest.raises(InvalidCheckpoint, match=f"wrong.pth.*{cause}") as refused:
            Checkpoint.load(path)
        assert len(str(refused.value).splitlines()) == 1


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When saving fails half-way, the former file stays and nothing else is left."""
    path = tmp_path / "last.pth"
    save_atomically({"epoch": 1}, path)

    def fail_half_way(content: object, file: object) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="no space"):
        save_atomically({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what was to be written, not the temporary file."""
    monkeypatch.setattr("model.checkpoint.tempfile.mkstemp", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(OSError, match=f"{tmp_path / 'last.pth'} could not be written .Permission denied.; nothing was"):
        write_atomically(b"new", tmp_path / "last.pth")


def test_the_new_file_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the folder cannot be flushed, nobody says that the former file was kept."""
    path = tmp_path / "last.pth"
    path.write_bytes(b"former")

    def fail(_: Path) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr("model.checkpoint._sync_folder", fail)
    with pytest.raises(OSError, match="^input/output error$"):
        write_atomically(b"new", path)
    assert path.read_bytes() == b"new"

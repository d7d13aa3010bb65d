"""What is deployed is what was exported, or it is refused before anything opens it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export import check, onnx
from export.command import export_to_repository
from export.graphs import GRAPHS
from export.manifest import MANIFEST, InvalidExport, hash_file
from model.checkpoint import Checkpoint


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """Exported files to be spoiled."""
    return shutil.copytree(exported, tmp_path / "copy")


def test_holds(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every graph answers its recorded questions as the checkpoint did."""
    assert check.main([str(exported)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == exported.name
    assert report["parity"].keys() == {path.stem for path in exported.iterdir() if path.stem in GRAPHS}
    assert report["parity"]["gin"]["same_anchor"] == 1


def test_a_flipped_bit(copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In any file, it is named, and no file is opened."""
    monkeypatch.setattr(check, "_ask", lambda *_: pytest.fail("a file was opened"))
    for path in sorted(copy.iterdir()):
        if path.name == MANIFEST:
            continue
        whole = path.read_bytes()
        spoiled = bytearray(whole)
        spoiled[len(spoiled) // 2] ^= 1
        path.write_bytes(spoiled)
        assert check.main([str(copy)]) == 1
        message = capsys.readouterr().err
        assert len(message.splitlines()) == 1
        assert f"{path} is not the file that was exported" in message
        path.write_bytes(whole)


def test_missing_parts(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is gone, a manifest that is gone or damaged, a folder without any: named in one line."""
    manifest = (copy / MANIFEST).read_bytes()
    (copy / "vocabulary.json").unlink()
    assert check.main([str(copy)]) == 1
    assert "vocabulary.json does not exist" in capsys.readouterr().err
    for spoiled in (b"{}", b"[1]", b"not JSON", b"\xff", manifest[:100]):
        (copy / MANIFEST).write_bytes(spoiled)
        with pytest.raises(InvalidExport, match="damaged"):
            check.verify(copy)
    (copy / MANIFEST).write_bytes(manifest.replace(b"gin-export-1", b"gin-export-9"))
    with pytest.raises(InvalidExport, match="gin-export-9"):
        check.verify(copy)
    (copy / MANIFEST).write_bytes(manifest.replace(b'"vocabulary.json"', b'"../vocabulary.json"'))
    with pytest.raises(InvalidExport, match="not a file of its folder"):
        check.verify(copy)
    (copy / MANIFEST).unlink()
    assert check.main([str(copy)]) == 1
    assert f"has no {MANIFEST}" in capsys.readouterr().err


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_other_answers(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files with right hashes that answer otherwise here, as under a faulty runtime, are refused with the figures."""
    path = copy / "gin.questions.npz"
    with np.load(path) as file:
        recorded = {name: file[name] for name in file.files}
    recorded["0.output.boxes"] = recorded["0.output.boxes"] + 1
    np.savez_compressed(path, **recorded)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"][path.name] = hash_file(path)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert check.main([str(copy)]) == 1
    assert "boxes 1 (limit 0.05)" in capsys.readouterr().err


def test_a_repository(checkpoint_path: Path, tmp_path: Path) -> None:
    """All models of a repository are verified, and must come from one checkpoint."""
    export_to_repository(checkpoint_path, onnx.FORMAT, tmp_path)
    assert {Path(line["folder"]).parent.name for line in check.verify(tmp_path)} == {"gin_onnx", "gin"}
    manifest = tmp_path / "gin" / "1" / MANIFEST
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(facts | {"checkpoint": "another"}))
    with pytest.raises(InvalidExport, match="different checkpoints"):
        check.verify(tmp_path)


def test_versions(checkpoint_path: Path, tmp_path: Path) -> None:
    """Exporting again adds a version and keeps the last good one, also when that is of another checkpoint; only the
    newest of all models must be of one."""
    checkpoint = Checkpoint.load(checkpoint_path)
    weights = {name: 1.01 * value for name, value in checkpoint.weights.items()}
    dataclasses.replace(checkpoint, weights=weights).save(tmp_path / "other.pth")
    repository = tmp_path / "repository"
    for path in (checkpoint_path, tmp_path / "other.pth"):
        export_to_repository(path, onnx.FORMAT, repository)
    found = {str(Path(line["folder"]).relative_to(repository)): line["checkpoint"] for line in check.verify(repository)}
    first, second = hash_file(checkpoint_path), hash_file(tmp_path / "other.pth")
    assert found == {"gin/1": first, "gin/2": second, "gin_onnx/1": first, "gin_onnx/2": second}

    with (repository / "gin" / "2" / "image.onnx").open("ab") as file:
        file.write(b"more")
    export_to_repository(checkpoint_path, onnx.FORMAT, repository)
    found = {str(Path(line["folder"]).relative_to(repository)): line["checkpoint"] for line in check.verify(repository)}
    assert found == {"gin/1": first, "gin/3": first, "gin_onnx/2": second, "gin_onnx/3": first}

"""What is deployed is what was exported, or it is refused before anything opens it."""

import contextlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import check
from export.formats import Format
from export.graphs import ANSWERS, GRAPHS, INPUTS
from export.manifest import MANIFEST, InvalidExport, hash_file, write_manifest
from export.parity import LIMITS
from export.publish import add_version
from tests.export.conftest import MODULES


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
    for spoiled in (b"{}", b"[1]", b"not JSON", b"\xff", b"[" * 100_000, manifest[:100]):
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
    for folder, cause in (
        (copy, f"{copy} has no {MANIFEST}"),
        (copy / "nowhere", f"there is no folder {copy}/nowhere"),
    ):
        assert check.main([str(folder)]) == 1
        assert cause in capsys.readouterr().err


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("limits", "it lacks limits"),
        ("kind", "it lacks kind"),
        ("outputs", "a graph lacks outputs"),
        ("same_anchor", "its limits are"),
    ],
)
def test_incomplete_manifest(copy: Path, name: str, cause: str) -> None:
    """What checking needs and the manifest lacks is named."""
    manifest = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(manifest.replace(f'"{name}"', '"another"'))
    with pytest.raises(InvalidExport, match=f"{MANIFEST} is damaged: {cause}"):
        check.verify(copy)


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"inputs": None}, "'NoneType' object is not iterable"),
        ({"inputs": ["pictures"]}, "'pictures'"),
        ({"outputs": ["box"]}, "box"),
        ({"questions": "vocabulary.json"}, "allow_pickle"),
    ],
)
def test_not_what_the_manifest_says(
    copy: Path, change: dict[str, Any], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be asked what the manifest says is named in one line; exit code 1."""
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["graphs"]["gin"] |= change
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert check.main([str(copy)]) == 1
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert f"{copy / 'gin.onnx'} does not answer its recorded questions: " in message
    assert cause in message


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_other_answers(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files with right hashes that answer otherwise here, as under a faulty runtime, are refused with the figures."""
    path = copy / "gin.questions.npz"
    with np.load(path) as file:
        recorded = {name: file[name] for name in file.files}
    recorded["0.output.boxes"] = recorded["0.output.boxes"] + 1
    np.savez_compressed(path, **recorded)
    claim_to_be_exported(path)
    assert check.main([str(copy)]) == 1
    assert "boxes 1 (limit 0.05)" in capsys.readouterr().err


def test_no_network(copy: Path, kind: Format, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with the right hash that its runtime cannot read is named in one line; exit code 1."""
    path = copy / f"gin{kind.suffix}"
    path.write_bytes(b"no network")
    claim_to_be_exported(path)
    assert check.main([str(copy)]) == 1
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert f"does not open {path.name}: " in message


@pytest.mark.parametrize(
    ("name", "opener"),
    [
        ("onnx", "export.runtime.onnxruntime.InferenceSession"),
        ("torchscript", "export.torchscript.torch.jit.load"),
        ("aot", "export.aot.aoti_load_package"),
    ],
)
def test_an_error_without_words(name: str, opener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a runtime that says nothing, the kind of error is named."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("\n")

    monkeypatch.setattr(opener, fail)
    with pytest.raises(ValueError, match=r"does not open gin\.file: RuntimeError"):
        MODULES[name].FORMAT.open(Path("gin.file"), INPUTS, ANSWERS)


def test_a_repository(half: Path, tmp_path: Path) -> None:
    """All models of a repository are verified, and must come from one checkpoint."""
    repository = shutil.copytree(half, tmp_path / "repository")
    assert {Path(line["folder"]).parent.name for line in check.verify(repository)} == {"gin_fp16", "gin_onnx_fp16"}
    claim_another_checkpoint(repository / "gin_fp16" / "1")
    with pytest.raises(InvalidExport, match="different checkpoints"):
        check.verify(repository)


def test_versions(half: Path, tmp_path: Path) -> None:
    """A new version leaves the last good one beside it, which may be of another checkpoint: only the newest of all
    models must be of one. Older ones go as they are, of links nothing but the link."""
    model = shutil.copytree(half, tmp_path / "repository") / "gin_fp16"
    claim_another_checkpoint(model / "1")
    assert add_version(shutil.copytree(half / "gin_fp16" / "1", tmp_path / "next"), model) == model / "2"
    assert [Path(line["folder"]).name for line in check.verify(model.parent)] == ["1", "2", "1"]
    with (model / "2" / "image.onnx").open("ab") as file:
        file.write(b"more")
    (model / "²").mkdir()  # no number
    (model / "0").symlink_to(half / "gin_fp16" / "1")
    assert add_version(shutil.copytree(half / "gin_fp16" / "1", tmp_path / "next"), model) == model / "3"
    assert [Path(line["folder"]).name for line in check.verify(model.parent)] == ["1", "3", "1"]
    assert (half / "gin_fp16" / "1" / MANIFEST).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"repository", "gin_fp16.0", "gin_fp16.2"}
    assert (tmp_path / "gin_fp16.2" / "image.onnx").exists()


def test_a_repository_with_files_beside_its_models(tmp_path: Path) -> None:
    """Their manifest does not stand for the models'."""
    facts = {"kind": "onnx", "checkpoint": "", "precision": "fp32", "image_size": 64, "limits": asdict(LIMITS["fp32"])}
    write_manifest(tmp_path, facts, {})
    version = tmp_path / "gin" / "1"
    version.mkdir(parents=True)
    (version / "model.py").touch()
    write_manifest(version, facts, {})
    assert [line["folder"] for line in check.verify(tmp_path)] == [str(tmp_path), str(version)]
    (version / "model.py").write_text("spoiled")
    with pytest.raises(InvalidExport, match="model.py is not the file that was exported"):
        check.verify(tmp_path)


def test_what_was_not_exported(half: Path, tmp_path: Path) -> None:
    """A version without a manifest and a file that no manifest names are refused, for a server would take them; what
    Python leaves beside a model's code is not. An export keeps a version whose own files are good all the same."""
    repository = shutil.copytree(half, tmp_path / "repository")
    model = repository / "gin_fp16"
    (model / "1" / "__pycache__").mkdir()
    assert len(check.verify(repository)) == 2
    (model / "7").mkdir()
    (model / "7" / "model.py").touch()
    with pytest.raises(InvalidExport, match=f"7 has no {MANIFEST}"):
        check.verify(repository)
    shutil.rmtree(model / "7")
    (model / "1" / "numpy.py").touch()
    for folder in (repository, model / "1", Path()):
        with contextlib.chdir(model / "1"), pytest.raises(InvalidExport, match="numpy.py was not exported"):
            check.verify(folder)
    add_version(shutil.copytree(half / "gin_fp16" / "1", tmp_path / "next"), model)
    assert {path.name for path in model.iterdir() if path.is_dir()} == {"1", "2"}


def claim_to_be_exported(path: Path) -> None:
    """Have the manifest beside a file name its hash."""
    manifest = json.loads((path.parent / MANIFEST).read_text())
    manifest["files"][path.name] = hash_file(path)
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


def claim_another_checkpoint(version: Path) -> None:
    """Have a manifest name a checkpoint that does not exist."""
    facts = json.loads((version / MANIFEST).read_text())
    (version / MANIFEST).write_text(json.dumps(facts | {"checkpoint": "another"}))

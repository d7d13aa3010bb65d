"""The committed repository agrees with the code, and only what was exported is served."""

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.configurations import COMMITTED as MODELS
from export.configurations import DEMO_SIZE, render
from export.graphs import ANSWERS, INPUTS
from serve.errors import RepositoryError
from serve.repository import select_models
from serve.versions import link_models, split_versions
from tests.serve.conftest import COMMITTED, copy_repository


def config(name: str) -> ModelConfig:
    """A committed configuration."""
    return text_format.Parse((COMMITTED / name / "config.pbtxt").read_text(), ModelConfig())


def names(tensors: list) -> list[str]:
    """The names of a configuration's tensors."""
    return [tensor.name for tensor in tensors]


def test_network_configurations() -> None:
    """Both network models have the exported files' inputs and outputs."""
    assert names(config("gin_onnx").input) == names(config("gin_torchscript").input) == list(INPUTS)
    assert names(config("gin_onnx").output) == list(ANSWERS)
    assert names(config("gin_torchscript").output) == [f"{name}__{n}" for n, name in enumerate(ANSWERS)]


@pytest.mark.parametrize("name", MODELS)
def test_committed_configurations(name: str) -> None:
    """What is committed is what `python -m export.configurations` writes, under the folder's name."""
    path = COMMITTED / name / "config.pbtxt"
    assert path.read_text() == render(name, name, DEMO_SIZE), "run `python -m export.configurations`"
    assert config(name).name == name


def test_variant_has_its_own_name() -> None:
    """A variant is configured like the model that it varies, but for the name."""
    variant = text_format.Parse(render("gin_int8", "gin", 320), ModelConfig())
    assert variant.name == "gin_int8"
    variant.name = "gin"
    assert variant == config("gin")


def test_selection(repository: Path, full_repository: Path) -> None:
    """What can be served is chosen; of what is configured and was not exported it is said how to."""
    selection = select_models(repository)
    assert selection.load == ("gin", "gin_onnx")
    assert "run `python -m export.torchscript" in selection.skipped["gin_torchscript"]
    selection = select_models(full_repository)
    assert selection.load == ("gin", "gin_onnx", "gin_torchscript")
    assert not selection.skipped


def test_missing_parts(tmp_path: Path) -> None:
    """Without an exported network there is nothing to serve."""
    with pytest.raises(RepositoryError, match=r"no version; run `python -m export\.onnx"):
        select_models(copy_repository(tmp_path / "triton_repo"))
    with pytest.raises(RepositoryError, match="no model 'gin'"):
        select_models(tmp_path)


@pytest.fixture
def built(repository: Path, tmp_path: Path) -> Path:
    """A copy of the repository."""
    return Path(shutil.copytree(repository, tmp_path / "triton_repo"))


@pytest.mark.parametrize(
    ("model", "command"),
    [
        ("gin_int8", "onnx CHECKPOINT --precision int8 --calibration CSV"),
        ("gin_onnx_fp16", "onnx CHECKPOINT --precision fp16"),
        ("gin_torchscript_bf16", "torchscript CHECKPOINT --precision bf16"),
    ],
)
def test_variant_without_files(built: Path, model: str, command: str) -> None:
    """The export that fills it is named, precision and all."""
    (built / model).mkdir()
    (built / model / "config.pbtxt").write_text((built / "gin_onnx" / "config.pbtxt").read_text())
    assert f"run `python -m export.{command}`" in select_models(built).skipped[model]


@pytest.mark.parametrize("file", ["image.onnx", "expression.onnx", "vocabulary.json", "model.py", "manifest.json"])
def test_each_part_is_needed(built: Path, file: str) -> None:
    """Any missing file of `gin` is named."""
    path = built / "gin" / "1" / file
    path.unlink()
    with pytest.raises(RepositoryError) as caught:
        select_models(built)
    assert file in str(caught.value)


@pytest.mark.parametrize("file", ["image.onnx", "vocabulary.json", "model.py"])
def test_tampered_file(built: Path, file: str) -> None:
    """A file with one byte changed is not served, code included; another model's does not stand in the way."""
    for folder, name in ((built / "gin_onnx", "model.onnx"), (built / "gin", file)):
        path = folder / "1" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        if folder.name == "gin_onnx":
            assert "SHA-256" in select_models(built).skipped["gin_onnx"]
    with pytest.raises(RepositoryError, match=f"{file} is not the file that was exported: its SHA-256 differs"):
        select_models(built)


def test_other_models(built: Path) -> None:
    """Models that nobody exported are not served, and do not stand in the way."""
    for name, text in (("foreign", 'platform: "tensorrt_plan"'), ("unknown", 'backend: "python"'), ("nameless", "")):
        (built / name / "1").mkdir(parents=True)
        (built / name / "config.pbtxt").write_text(text)
    (built / "notes").mkdir()
    selection = select_models(built)
    assert selection.load == ("gin", "gin_onnx")
    assert set(selection.skipped) == {"foreign", "gin_torchscript", "nameless", "unknown"}
    assert "tensorrt_plan" in selection.skipped["foreign"]
    assert "manifest.json" in selection.skipped["unknown"]


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"format": "gin-export-1", "files": [1]}'])
def test_damaged_manifest(built: Path, text: str) -> None:
    """A version whose manifest cannot be read does not stand in the way of another."""
    shutil.copytree(built / "gin" / "1", built / "gin" / "2")
    (built / "gin" / "2" / "manifest.json").write_text(text)
    good, refused = split_versions(built / "gin")
    assert good == [built / "gin" / "1"]
    assert "gin/2/manifest.json is damaged" in refused[str(built / "gin" / "2")]


def test_versions_that_verify(built: Path) -> None:
    """A version that does not verify does not stand in the way of one that does; folders without a number do not
    count."""
    shutil.copytree(built / "gin" / "1", built / "gin" / "10")
    (built / "gin" / "10" / "vocabulary.json").write_text("{}")
    for name in ("old", "²"):
        shutil.copytree(built / "gin" / "1", built / "gin" / name)
    good, refused = split_versions(built / "gin")
    assert good == [built / "gin" / "1"]
    assert list(refused) == [str(built / "gin" / "10")]
    assert "gin" in select_models(built).load
    shutil.rmtree(built / "gin" / "1")
    with pytest.raises(RepositoryError, match="SHA-256 differs"):
        select_models(built)


def test_no_folder(tmp_path: Path) -> None:
    """A path that is no folder is named."""
    with pytest.raises(RepositoryError, match="nowhere"):
        select_models(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="file"):
        select_models(tmp_path / "file")


def test_what_lies_beside(built: Path, tmp_path: Path) -> None:
    """Of a version the server is shown what was exported and nothing else, least of all compiled code."""
    version = built / "gin" / "1"
    (version / "__pycache__").mkdir()
    (version / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"forged")
    (version / "presence.txt").write_text("more")
    exported = {*json.loads((version / "manifest.json").read_text())["files"], "manifest.json"}
    assert not link_models(built, ["gin"], tmp_path / "view")
    assert {path.name for path in (tmp_path / "view" / "gin" / "1").iterdir()} == exported
    assert (tmp_path / "view" / "gin" / "config.pbtxt").read_text() == (built / "gin" / "config.pbtxt").read_text()


def test_view_follows(built: Path, tmp_path: Path) -> None:
    """New versions appear in what is shown, and those that are gone or known not to load disappear."""
    model, view = built / "gin", tmp_path / "view"
    link_models(built, ["gin"], view)
    (view / "gin" / "1" / "__pycache__").mkdir()
    shutil.copytree(model / "1", model / "10")
    link_models(built, ["gin"], view)
    assert {path.name for path in (view / "gin").iterdir() if path.is_dir()} == {"1", "10"}
    assert (view / "gin" / "1" / "__pycache__").is_dir()
    refused = link_models(built, ["gin"], view, {str(model / "10"): "it cannot be loaded"})
    assert refused == {str(model / "10"): "it cannot be loaded"}
    assert {path.name for path in (view / "gin").iterdir() if path.is_dir()} == {"1"}
    with pytest.raises(RepositoryError, match="no version to serve: neither"):
        link_models(built, ["gin"], view, {str(model / "1"): "neither", str(model / "10"): "nor"})
    assert not list((view / "gin").iterdir())
    for version in ("1", "10"):
        shutil.rmtree(model / version)
    with pytest.raises(RepositoryError, match="no version to serve: .*/gin holds none"):
        link_models(built, ["gin"], view)


def test_files_that_cannot_be_read(built: Path) -> None:
    """Named with the system's reason."""
    path = built / "gin" / "config.pbtxt"
    path.unlink()
    path.mkdir()
    with pytest.raises(RepositoryError, match=r"gin/config.pbtxt cannot be read: Is a directory"):
        select_models(built)

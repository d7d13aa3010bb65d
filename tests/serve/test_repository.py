"""The committed repository agrees with the code."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.graphs import ANSWERS, INPUTS
from serve.repository import RepositoryError, select_models
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


def test_ensemble_fits_its_members() -> None:
    """Every tensor that the ensemble maps exists in its member."""
    for step in config("gin").ensemble_scheduling.step:
        member = config(step.model_name)
        assert set(step.input_map) == set(names(member.input))
        assert set(step.output_map) <= set(names(member.output))


def test_every_model_carries_its_folders_name() -> None:
    """A model's name is its folder's."""
    for path in COMMITTED.glob("*/config.pbtxt"):
        assert config(path.parent.name).name == path.parent.name


def test_selection(repository: Path) -> None:
    """What can be served is chosen; the rest is named with its reason."""
    selection = select_models(repository)
    assert selection.load == ("gin", "gin_onnx", "gin_prepare")
    assert "pytorch" in selection.skipped["gin_torchscript"]


def test_missing_parts(tmp_path: Path) -> None:
    """Without an exported network there is nothing to serve."""
    with pytest.raises(RepositoryError, match=r"does not exist; run `python -m export\.onnx"):
        select_models(copy_repository(tmp_path / "triton_repo"))
    with pytest.raises(RepositoryError, match="no model 'gin'"):
        select_models(tmp_path)


def add_model(repository: Path, name: str, config: str, *files: str) -> None:
    """A further model."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    for file in files:
        (repository / name / "1" / file).touch()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A repository with every file that is looked for, all empty."""
    folder = copy_repository(tmp_path / "triton_repo")
    (folder / "gin_onnx" / "1" / "model.onnx").touch()
    (folder / "gin_prepare" / "1" / "vocabulary.json").touch()
    return folder


@pytest.mark.parametrize("file", ["gin_onnx/1/model.onnx", "gin_prepare/1/vocabulary.json", "gin_prepare/1/model.py"])
def test_each_part_is_needed(built: Path, file: str) -> None:
    """Any missing file of a part of `gin` is named with the model that needs it."""
    (built / file).unlink()
    with pytest.raises(RepositoryError) as caught:
        select_models(built)
    assert str(built / file) in str(caught.value)
    assert f"'{Path(file).parts[0]}'" in str(caught.value)


def test_other_models(built: Path) -> None:
    """Models that `gin` does not need are served if they can be, and else do not stand in the way."""
    add_model(built, "extra", 'backend: "python"', "model.py")
    add_model(built, "empty", 'backend: "onnxruntime"')
    add_model(built, "foreign", 'platform: "tensorrt_plan"', "model.plan")
    add_model(built, "nameless", "max_batch_size: 0", "model.py")
    (built / "notes").mkdir()
    selection = select_models(built)
    assert selection.load == ("extra", "gin", "gin_onnx", "gin_prepare")
    assert set(selection.skipped) == {"empty", "foreign", "nameless", "gin_torchscript"}
    assert "model.onnx" in selection.skipped["empty"]
    assert "tensorrt_plan" in selection.skipped["foreign"]


def test_another_version(built: Path) -> None:
    """A file in any numbered version folder counts; one in another folder does not."""
    (built / "gin_onnx" / "1").rename(built / "gin_onnx" / "7")
    assert "gin_onnx" in select_models(built).load
    (built / "gin_onnx" / "7").rename(built / "gin_onnx" / "old")
    with pytest.raises(RepositoryError, match="gin_onnx"):
        select_models(built)


def test_part_that_is_not_there(built: Path) -> None:
    """A part of `gin` whose folder is missing is named."""
    (built / "gin_onnx").rename(built / ".." / "elsewhere")
    with pytest.raises(RepositoryError, match="gin_onnx"):
        select_models(built)


def test_no_folder(tmp_path: Path) -> None:
    """A path that is no folder is named."""
    with pytest.raises(RepositoryError, match="nowhere"):
        select_models(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="file"):
        select_models(tmp_path / "file")

"""The committed repository agrees with the code."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.served import INPUTS, OUTPUTS
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
    assert names(config("gin_onnx").output) == list(OUTPUTS)
    assert names(config("gin_torchscript").output) == [f"{name}__{n}" for n, name in enumerate(OUTPUTS)]


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

"""What this project's backends do when the network fails, without a server around them."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

BACKENDS = Path(__file__).parents[2] / "serve" / "backends"


class Ended(BaseException):
    """In the place of the process's end."""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend `pytorch`."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", Mock(TritonModelException=ValueError))
    monkeypatch.delitem(sys.modules, "serve.network_model", raising=False)
    spec = importlib.util.spec_from_file_location("backend", BACKENDS / "pytorch" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("text", "says"), [("two", "INTRA_OP_THREAD_COUNT 'two'"), ("0", "does not exist")])
def test_numbers_of_threads(
    backend: ModuleType, tmp_path: Path, text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no number is named, with its parameter; 0 is as if nothing had been said."""
    monkeypatch.setattr(torch, "set_num_threads", Mock())  # of this process
    config = json.dumps({"parameters": {"INTRA_OP_THREAD_COUNT": {"string_value": text}}})
    place = {"model_repository": str(tmp_path), "model_version": "1", "model_instance_kind": "CPU"}
    with pytest.raises(ValueError, match=says):
        backend.TritonPythonModel().initialize({"model_config": config, **place})


@pytest.mark.parametrize(
    ("device", "lost", "ends"), [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)]
)
def test_a_lost_gpu(backend: ModuleType, device: str, lost: bool, ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that CUDA serves no more ends, and is started again; after any other failure it answers on."""
    failing = Mock(side_effect=RuntimeError("CUDA error"))
    monkeypatch.setattr(torch.cuda, "synchronize", failing if lost else Mock())
    monkeypatch.setattr(os, "_exit", Mock(side_effect=Ended))
    model = backend.TritonPythonModel()
    model.inputs, model.places = ["x"], {"y__0": 0}
    model.device = SimpleNamespace(type=device)
    model.network = failing
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, _: tensor)
    with pytest.raises(Ended if ends else RuntimeError):
        model.run({"x": np.zeros(1)}, ["y__0"])

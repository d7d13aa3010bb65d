"""The other layouts that `gin` is compared with are served and answer the same."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest
import tritonclient.grpc as triton

ROOT = Path(__file__).parents[2]


def test_layouts(repository: Path, jpeg: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them beside each other in one server."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    layouts = import_module("layouts")
    monkeypatch.setattr(layouts, "BATCHES", (1,))
    shutil.copytree(repository, tmp_path / "triton_repo")
    layouts.add_layouts(tmp_path / "triton_repo")
    with (
        layouts.LayoutServer(tmp_path / "triton_repo") as server,
        triton.InferenceServerClient(f"{server.address}:{server.grpc_port}") as client,
    ):
        names = ("gin", "ensemble", "bls", "cached", "gin_batch1")
        layouts.assert_same({name: layouts.asking(client, name, lambda: jpeg, ["the red star"]) for name in names})

"""The small network as a file, exported once per format."""

from pathlib import Path
from typing import Any

import pytest

from export import aot, onnx, torchscript
from export.build import Request, build
from export.formats import Format
from export.graphs import GRAPHS
from export.parity import LIMITS

MODULES: dict[str, Any] = {"onnx": onnx, "torchscript": torchscript, "aot": aot}  # the commands


@pytest.fixture(scope="session", params=MODULES)
def exported(request: pytest.FixtureRequest, checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all graphs in fp32, of AOTInductor, which compiles for a minute, the whole alone; its name is the
    format's."""
    folder = tmp_path_factory.mktemp("exported") / request.param
    folder.mkdir()
    names = ["gin"] if request.param == "aot" else GRAPHS
    build(Request(checkpoint_path, "fp32", LIMITS["fp32"]), MODULES[request.param].FORMAT, folder, names)
    return folder


@pytest.fixture
def kind(exported: Path) -> Format:
    """Its format."""
    return MODULES[exported.name].FORMAT

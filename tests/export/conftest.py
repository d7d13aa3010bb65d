"""The small network as a file, exported once per format."""

from pathlib import Path
from typing import Any

import pytest

from export import aot, onnx, torchscript
from export.build import Request, build
from export.formats import Format
from export.graphs import GRAPHS
from export.parity import LIMITS
from tests.conftest import Once

MODULES: dict[str, Any] = {"onnx": onnx, "torchscript": torchscript, "aot": aot}  # the commands


@pytest.fixture(scope="session", params=MODULES)
def exported(request: pytest.FixtureRequest, checkpoint_path: Path, once: Once) -> Path:
    """A folder with all graphs in fp32, of AOTInductor, which compiles for a minute, the whole alone; its name is the
    format's."""
    asked = Request(checkpoint_path, "fp32", LIMITS["fp32"])
    names = ["gin"] if request.param == "aot" else GRAPHS
    return once(request.param, lambda folder: build(asked, MODULES[request.param].FORMAT, folder, names))


@pytest.fixture
def kind(exported: Path) -> Format:
    """Its format."""
    return MODULES[exported.name].FORMAT

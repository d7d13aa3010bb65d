"""The small network as a file, exported once per format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export import aot, onnx, torchscript
from export.formats import Format

MODULES: dict[str, Any] = {"onnx": onnx, "torchscript": torchscript, "aot": aot}  # the commands


@pytest.fixture(scope="session", params=MODULES)
def exported(request: pytest.FixtureRequest, export_once: Callable[[Format], Path]) -> Path:
    """A folder with exported graphs; its name is the format's."""
    return export_once(MODULES[request.param].FORMAT)


@pytest.fixture
def kind(exported: Path) -> Format:
    """Its format."""
    return MODULES[exported.name].FORMAT

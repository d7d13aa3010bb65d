"""docs/quickstart.ipynb: its cells run, and do what the committed outputs show."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serve import Server
from tests.blocks import ROOT
from tests.docs.terminal import compare

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel: pip install '.[dev]'")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: pip install '.[dev]'")

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
ADDRESS = '"127.0.0.1:8001"'


def outputs(notebook: Any) -> list[str]:
    """What the cells print, and the pictures that they show, as base64."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["text"] if output["output_type"] == "stream" else output["data"]["image/png"] for output in found]


def pixels(picture: str) -> np.ndarray[Any, Any]:
    """(H, W, 3)"""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), dtype=float)


def test_notebook(server: Server, tmp_path: Path) -> None:
    """Executed anew, every cell prints and shows the same; a cell that fails ends it."""
    shown = nbformat.read(NOTEBOOK, 4)
    notebook = nbformat.read(NOTEBOOK, 4)
    connecting = next(cell for cell in notebook.cells if ADDRESS in cell.source)
    connecting.source = connecting.source.replace(ADDRESS, f'"{server.address}:{server.grpc_port}"')
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "IPYTHONDIR": str(tmp_path),
    }
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    # What a cell prints may come in several pieces, which belong together.
    told = {"timeout": 60, "kernel_name": "python3", "resources": where, "coalesce_streams": True}
    nbclient.NotebookClient(notebook, **told).execute(env=environment)
    pictures = 0
    for expected, got in zip(outputs(shown), outputs(notebook), strict=True):
        if expected.startswith("iVBOR"):  # PNG
            pictures += 1
            assert np.abs(pixels(got) - pixels(expected)).mean() < 1
        else:
            compare(expected, got, NOTEBOOK.name)
    assert pictures == 3

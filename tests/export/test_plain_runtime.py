"""The files are valid outside this project: the program in docs/export.md answers as the checkpoint does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.graphs import make_graphs
from model.checkpoint import Checkpoint

DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"
EXPRESSIONS = ["the red circle", "Second_SQUARE, from the ｌｅｆｔ!", "a giraffe ☂ above"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documented program, which also says if any of this project came in."""
    *_, code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    code += "assert not {'model', 'export', 'serve', 'client', 'train', 'torch'} & sys.modules.keys()\n"
    path = tmp_path_factory.mktemp("elsewhere") / "ask.py"
    path.write_text(code, encoding="utf-8")
    return path


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_same_answers(
    exported: Path, checkpoint: Checkpoint, program: Path, picture: Image.Image, expression: str
) -> None:
    """The same box, score and winning anchor from the file, the vocabulary and ten lines."""
    path = program.parent / "picture.png"
    seen = picture.copy()
    seen.putalpha(seen.getchannel("G"))
    seen.save(path)
    command = [sys.executable, "-I", str(program), str(exported), str(path), expression]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    preparation = checkpoint.preparation
    pixels, size = preparation.image(path.read_bytes())
    ids, lengths = preparation.expressions([expression])
    question = {
        "images": torch.from_numpy(pixels)[None],
        "expression_ids": torch.from_numpy(ids),
        "lengths": torch.from_numpy(lengths),
        "image_index": torch.tensor([0]),
        "image_sizes": torch.tensor([size]),
    }
    expected = make_graphs(checkpoint.network())["gin"](question)
    np.testing.assert_allclose(answer["box"], expected["boxes"][0], atol=0.05)
    assert answer["score"] == pytest.approx(expected["scores"].item(), abs=1e-4)
    assert answer["anchor"] == expected["anchors"].item()

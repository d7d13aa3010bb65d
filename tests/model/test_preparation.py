"""Limits of expressions, and that preparing inputs needs no PyTorch."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.picture import read_picture, resize
from model.preparation import MAX_CHARACTERS, MAX_EXPRESSIONS, InvalidInput, Preparation
from model.words import Vocabulary


@pytest.fixture
def preparation() -> Preparation:
    """A preparation that knows two words."""
    return Preparation(64, "bilinear", 50, Vocabulary(["red", "circle"]))


def test_expressions_are_padded_at_the_end(preparation: Preparation) -> None:
    """Ids fill the front of their row; lengths say how far."""
    ids, lengths = preparation.expressions(["red", b"Circle red zebra"])
    assert ids.tolist() == [[2, 0, 0], [3, 2, 1]]
    assert lengths.tolist() == [1, 3]
    assert ids.dtype == lengths.dtype == np.int64


def test_longest_expression(preparation: Preparation) -> None:
    """50 words are answered, 51 are refused."""
    assert preparation.expressions([" ".join(["red"] * 50)])[1].tolist() == [50]
    with pytest.raises(InvalidInput, match="51 words"):
        preparation.expressions([" ".join(["red"] * 51)])


@pytest.mark.parametrize(
    ("expressions", "cause"),
    [
        ([], "0 expressions"),
        (["red"] * (MAX_EXPRESSIONS + 1), f"{MAX_EXPRESSIONS + 1} expressions"),
        ([""], "no words"),
        (["red", " _ ! "], "expression 2 of 2.*no words"),
        ([b"\xff\xfe"], "not UTF-8"),
        (["a" * (MAX_CHARACTERS + 1)], "characters"),
    ],
)
def test_refusals(preparation: Preparation, expressions: list, cause: str) -> None:
    """Each refusal names its cause."""
    with pytest.raises(InvalidInput, match=cause):
        preparation.expressions(expressions)


def test_image(preparation: Preparation, jpeg: bytes) -> None:
    """The picture becomes a square; its own size is kept beside it."""
    pixels, size = preparation.image(jpeg)
    assert (pixels.shape, pixels.dtype, size) == ((64, 64, 3), np.uint8, (90, 120))


def test_round_trip(preparation: Preparation, tmp_path: Path) -> None:
    """What is saved for the server is what it loads."""
    preparation.save(tmp_path / "vocabulary.json")
    loaded = Preparation.load(tmp_path / "vocabulary.json")
    assert loaded.vocabulary.words == preparation.vocabulary.words
    assert (loaded.image_size, loaded.resize_filter, loaded.max_words) == (64, "bilinear", 50)


def test_needs_no_torch() -> None:
    """Importing the preparation imports no PyTorch, so a server image needs none."""
    code = "import sys, model.preparation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("resize_filter", "limit"), [("bilinear", 1.5), ("bicubic", 2.0), ("nearest", 0.0)])
def test_large_jpegs(resize_filter: str, limit: float) -> None:
    """Decoding at a smaller scale hardly shows after the resizing; with "nearest" every pixel is as it was."""
    random = np.random.default_rng(1)
    coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    picture = coarse.resize((1600, 1200), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    preparation = Preparation(128, resize_filter, 50, Vocabulary([]))
    pixels, size = preparation.image(file.getvalue())
    direct = resize(read_picture(file.getvalue())[0], 128, resize_filter)
    assert size == (1200, 1600)
    assert np.abs(pixels.astype(int) - direct).mean() <= limit

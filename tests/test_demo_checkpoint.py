"""The committed demo network does what is claimed of it."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from train.data.annotations import Row, read_rows
from train.data.loading import evaluation_loader
from train.data.scenes import write_scenes
from train.evaluate import exchange_expressions
from train.evaluation import Scores, evaluate

PATH = Path(__file__).parent.parent / "checkpoints" / "demo.pth"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Scenes of a seed that neither training, validation nor the published test used."""
    folder = tmp_path_factory.mktemp("scenes")
    return read_rows(write_scenes(folder, count=60, seed=77, expressions=4), folder / "images")


def accuracy(rows: list[Row]) -> float:
    """Accuracy of the demo network on rows."""
    checkpoint = Checkpoint.load(PATH)
    loader = evaluation_loader(rows, checkpoint.preparation, workers=0)
    return Scores.of(evaluate(checkpoint.network(), loader, torch.device("cpu"))).accuracy


def test_is_small() -> None:
    """At most 12 MB: a clone stays quick."""
    assert PATH.stat().st_size <= 12_000_000


def test_answers_unseen_scenes(rows: list[Row]) -> None:
    """Nearly all boxes are right; the published figure, 0.90, is of many more scenes."""
    assert accuracy(rows) >= 0.85


def test_reads(rows: list[Row]) -> None:
    """Asked about another thing of the same picture, it leaves the first one."""
    assert accuracy(exchange_expressions(rows)) <= 0.15

"""Rows as batches."""

import csv

import pytest
import torch

from model.checkpoint import Checkpoint
from train.data.annotations import Row, read_rows
from train.data.dataset import GroundingDataset, collate
from train.data.scenes import write_scenes


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Six scenes with three expressions each."""
    folder = tmp_path_factory.mktemp("scenes")
    return read_rows(write_scenes(folder, 6, seed=3, expressions=3), folder / "images")


def test_pictures_are_shared(rows: list[Row], checkpoint: Checkpoint) -> None:
    """With sharing a picture is one sample with all its rows, without it a row is one."""
    shared = GroundingDataset(rows, checkpoint.preparation, share_images=True, draw=False)
    single = GroundingDataset(rows, checkpoint.preparation, share_images=False, draw=False)
    assert (len(shared), len(single)) == (6, 18)
    batch, rowwise = collate([shared[0], shared[1]]), collate([single[n] for n in range(6)])
    assert batch.pixels.shape == (2, 64, 64, 3)
    assert batch.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert rowwise.image_index.tolist() == list(range(6))
    for name in ("ids", "lengths", "boxes", "image_sizes", "rows"):
        assert torch.equal(getattr(batch, name), getattr(rowwise, name)), name
    assert torch.equal(batch.pixels[batch.image_index], rowwise.pixels)


def test_drawing_takes_any_expression(rows: list[Row], checkpoint: Checkpoint) -> None:
    """Of a row's expressions training takes one at random, evaluation the first."""
    row = Row(0, rows[0].image, rows[0].box, ("red", "red circle", "the red circle"))
    drawn = GroundingDataset([row], checkpoint.preparation, share_images=False, draw=True)
    first = GroundingDataset([row], checkpoint.preparation, share_images=False, draw=False)
    assert {len(drawn[0].words[0]) for _ in range(60)} == {1, 2, 3}
    assert {len(first[0].words[0]) for _ in range(10)} == {1}


def test_csv_has_the_originals_header(rows: list[Row]) -> None:
    """The generated CSV is read by the standard reader under the originals' names."""
    with open(rows[0].image.parent.parent / "scenes.csv", newline="") as file:
        assert next(csv.reader(file)) == ["img_id", "bbox", "query"]

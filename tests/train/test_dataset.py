"""Rows as batches."""

import csv
import dataclasses
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from model.words import Vocabulary
from train.config import DataConfig, ResizedConfig, TrainConfig
from train.data.annotations import InvalidData, Row, read_rows
from train.data.dataset import GroundingDataset, collate
from train.data.loading import evaluation_loader, load_data
from train.data.sampler import TrainingBatches, Visit
from train.data.scenes import write_scenes


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Six scenes with three expressions each."""
    folder = tmp_path_factory.mktemp("scenes")
    return read_rows(write_scenes(folder, 6, seed=3, expressions=3), folder / "images")


def at(index: int) -> Visit:
    """A visit in the first epoch."""
    return Visit(0, index)


def test_pictures_are_shared(rows: list[Row], checkpoint: Checkpoint) -> None:
    """With sharing a picture is one sample with all its rows, without it a row is one."""
    shared = GroundingDataset(rows, checkpoint.preparation, share_images=True)
    single = GroundingDataset(rows, checkpoint.preparation, share_images=False)
    assert (len(shared), len(single)) == (6, 18)
    batch, rowwise = collate([shared[at(0)], shared[at(1)]]), collate([single[at(n)] for n in range(6)])
    assert batch.pixels.shape == (2, 64, 64, 3)
    assert batch.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert rowwise.image_index.tolist() == list(range(6))
    for name in ("ids", "lengths", "boxes", "image_sizes", "rows"):
        assert torch.equal(getattr(batch, name), getattr(rowwise, name)), name
    assert torch.equal(batch.pixels[batch.image_index], rowwise.pixels)


def test_drawing_takes_any_expression(rows: list[Row], checkpoint: Checkpoint) -> None:
    """Of a row's expressions training takes one at random, evaluation the first."""
    row = Row(0, rows[0].image, rows[0].box, ("red", "red circle", "the red circle"))
    drawn = GroundingDataset([row], checkpoint.preparation, share_images=False, seed=1)
    first = GroundingDataset([row], checkpoint.preparation, share_images=False)
    assert {len(drawn[Visit(epoch, 0)].words[0]) for epoch in range(60)} == {1, 2, 3}
    assert {len(first[Visit(epoch, 0)].words[0]) for epoch in range(10)} == {1}
    again = GroundingDataset([row], checkpoint.preparation, share_images=False, seed=1)
    assert [drawn[Visit(epoch, 0)].words for epoch in range(20)] == [
        again[Visit(epoch, 0)].words for epoch in range(20)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanished(rows: list[Row], checkpoint: Checkpoint, workers: int) -> None:
    """It is named in one line, whichever process misses it."""
    gone = dataclasses.replace(rows[0], image=rows[0].image.with_name("gone.jpg"))
    with pytest.raises(InvalidData) as raised:
        list(evaluation_loader([gone], checkpoint.preparation, workers))
    assert str(raised.value) == f"{gone.image} (line 2 and others about it): no file '{gone.image}'"
    assert len(str(raised.value).splitlines()) == 1


def test_csv_has_the_originals_header(rows: list[Row]) -> None:
    """The generated CSV is read by the standard reader under the originals' names."""
    with open(rows[0].image.parent.parent / "scenes.csv", newline="") as file:
        assert next(csv.reader(file)) == ["img_id", "bbox", "query"]


def test_an_epoch_is_dealt_out_once() -> None:
    """Over all ranks every sample comes once, but for those that do not fill a step; another epoch is shuffled anew."""
    ranks = []
    for rank in range(3):
        batches = TrainingBatches(50, batch_size=2, accumulate=2, seed=4)
        batches.rank, batches.ranks = rank, 3
        ranks.append([visit for batch in batches for visit in batch])
        assert batches.steps == 4
        assert len(batches) == 8
        batches.begin(epoch=1)
        assert [visit.sample for batch in batches for visit in batch] != [visit.sample for visit in ranks[-1]]
    seen = [visit.sample for visits in ranks for visit in visits]
    assert len(seen) == len(set(seen)) == 48


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_epoch_goes_on(ranks: int) -> None:
    """After 12 samples that two ranks have seen, any number of ranks sees each of the others once."""
    before, after = [], []
    for rank in range(2):
        batches = TrainingBatches(40, batch_size=3, accumulate=1, seed=4)
        batches.rank, batches.ranks = rank, 2
        before += [visit for batch in list(batches)[:2] for visit in batch]
    for rank in range(ranks):
        batches = TrainingBatches(40, batch_size=3, accumulate=1, seed=4)
        batches.rank, batches.ranks = rank, ranks
        batches.begin(0, position=12)
        after += [visit for batch in batches for visit in batch]
    assert len(before) == len(set(before)) == 12
    assert not set(before) & set(after)
    assert len(after) == len(set(after)) == 28 // (3 * ranks) * 3 * ranks


def test_too_few_samples() -> None:
    """Samples that do not fill a step are refused with the numbers."""
    with pytest.raises(ValueError, match="7 samples do not fill one step of 8"):
        TrainingBatches(7, batch_size=4, accumulate=2, seed=0)


def test_too_few_samples_for_the_second_stage(tmp_path: Path) -> None:
    """They are refused before the first one begins."""
    table = write_scenes(tmp_path, 2, seed=3, expressions=3)
    data = DataConfig(train=str(table), val=str(table), images=str(tmp_path / "images"), batch_size=2, workers=0)
    with pytest.raises(ValueError, match="6 samples do not fill one step of 7 .* smaller"):
        load_data(TrainConfig(data=data, resized=ResizedConfig(batch_size=7)))


def test_words_that_a_checkpoint_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are learned and named where a run begins with the checkpoint; a resumed run keeps its words, and names those
    that its annotations have had since."""
    table = write_scenes(tmp_path, 2, seed=3, expressions=3)
    data = DataConfig(train=str(table), val=str(table), images=str(tmp_path / "images"), batch_size=2, workers=0)
    known = Vocabulary(["mug", "the"])
    words = load_data(TrainConfig(data=data), known).vocabulary.words
    assert words[:2] == known.words
    assert set(words) >= {word for row in read_rows(table, tmp_path / "images") for word in row.expressions[0].split()}
    assert f"new to the network that the run begins with: {', '.join(words[2:])}" in capsys.readouterr().err
    assert load_data(TrainConfig(data=data), known, resumes=True).vocabulary.words == known.words
    assert f"that the run began with, and not learned: {', '.join(words[2:])}" in capsys.readouterr().err

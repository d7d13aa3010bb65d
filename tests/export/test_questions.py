"""What exported files are asked."""

import dataclasses
from pathlib import Path

import pytest
import torch

from export.questions import made_up_questions, read_examples
from model.checkpoint import Checkpoint
from model.preparation import MAX_EXPRESSIONS
from train.data.annotations import InvalidData


@pytest.mark.parametrize("longest", [1, 3, 50])
def test_made_up_lengths(checkpoint: Checkpoint, longest: int) -> None:
    """No expression is without words or longer than the network reads, and the longest is asked."""
    config = dataclasses.replace(checkpoint.config, max_words=longest)
    questions = made_up_questions(dataclasses.replace(checkpoint, config=config))
    lengths = torch.cat([question["lengths"] for question in questions])
    assert (lengths.min(), lengths.max()) == (1, longest)


@pytest.fixture
def csv(tmp_path: Path, jpeg: bytes) -> Path:
    """A picture with more rows than one question holds, each with a box of its own."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.jpg").write_bytes(jpeg)
    rows = [f'one.jpg,"[0, 0, {number + 1}, 9]",the star' for number in range(MAX_EXPRESSIONS + 2)]
    (tmp_path / "scenes.csv").write_text("\n".join(["img_id,bbox,query", *rows]))
    return tmp_path / "scenes.csv"


def test_every_row_is_asked(csv: Path, checkpoint: Checkpoint) -> None:
    """In several questions about the same picture, in the rows' order."""
    examples = read_examples(csv, checkpoint.preparation, pictures=1)
    assert [len(example.question["lengths"]) for example in examples] == [MAX_EXPRESSIONS, 2]
    assert torch.equal(examples[0].question["images"], examples[1].question["images"])
    assert torch.cat([example.boxes for example in examples])[:, 2].tolist() == list(range(1, MAX_EXPRESSIONS + 3))


def test_pictures_elsewhere(csv: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A CSV and its pictures need not lie together."""
    before = read_examples(csv, checkpoint.preparation, pictures=1)
    elsewhere = (tmp_path / "images").rename(tmp_path / "elsewhere")
    after = read_examples(csv, checkpoint.preparation, pictures=1, images=elsewhere)
    assert torch.equal(before[0].question["images"], after[0].question["images"])
    with pytest.raises(InvalidData, match="there is no folder '.*images'"):
        read_examples(csv, checkpoint.preparation)


def test_the_failing_row_is_named(csv: Path, checkpoint: Checkpoint) -> None:
    """Not another row about the same picture."""
    lines = csv.read_text().splitlines()
    lines[6] = lines[6].replace("the star", "...")
    csv.write_text("\n".join(lines))
    with pytest.raises(InvalidData, match="scenes.csv, line 7, one.jpg: the expression '...' has no words"):
        read_examples(csv, checkpoint.preparation)

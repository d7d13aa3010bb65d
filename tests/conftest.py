"""What several test folders share: a small network with random weights, as a checkpoint file."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.gin import GIN
from model.words import Vocabulary

WORDS = "the red green blue small large circle square star left of right above second from".split()
SMALL = ModelConfig(
    backbone="shufflenet_v2_x0_5",
    image_size=64,
    word_width=16,
    language_width=32,
    branch_width=8,
    map_width=16,
    pyramid_width=16,
    head_width=16,
    head_layers=2,
)


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """A small network with random weights whose norms have seen images, so that images and words matter."""
    torch.manual_seed(0)
    network = GIN(SMALL, len(Vocabulary(WORDS))).train()
    ids = torch.randint(1, len(Vocabulary(WORDS)), (16, 5))
    with torch.no_grad():
        for _ in range(30):
            network(torch.rand(16, 3, 64, 64) * torch.rand(16, 3, 1, 1), ids, torch.randint(1, 6, (16,)))
        network.head.output.weight.mul_(5)
    return Checkpoint(SMALL, Vocabulary(WORDS), network.eval().state_dict())


@pytest.fixture(scope="session")
def checkpoint_path(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a file."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.pth"
    checkpoint.save(path)
    return path


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A picture that is not square and has no symmetry: RGB, 120 x 90 pixels."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, size=(6, 8, 3), dtype=np.uint8))
    return coarse.resize((120, 90), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def jpeg(picture: Image.Image) -> bytes:
    """The same as a JPEG file's bytes."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()

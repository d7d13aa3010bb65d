"""What several test folders share: a small network with random weights, as a checkpoint file."""

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from export import onnx
from export.build import Request, build, read_checkpoint
from export.formats import Format
from export.graphs import GRAPHS
from export.parity import LIMITS
from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.gin import GIN
from model.presence import Presence
from model.words import Vocabulary

WORDS = "the red green blue small large circle square star left of right above second from".split()
SMALL = ModelConfig(
    backbone="resnet18",
    image_size=64,
    word_width=16,
    language_width=32,
    branch_width=8,
    map_width=16,
    pyramid_width=16,
    head_width=16,
    head_layers=2,
)


LONGEST = (  # the longest first; who asks for what the first exports comes late enough not to wait for it
    "export/test_files.py",
    "train/test_restart.py",
    "train/test_resume.py",
    "train/test_run.py",
    "serve/test_recovery.py",
    "export/test_rewrite.py",
    "model/test_convert.py",
    "docs/test_asking.py",
    "serve/test_command.py",
    "model/test_variants.py",
    "train/test_step.py",
)


# Whatever started the tests may ignore Ctrl-C, as a shell does for what it runs in the background, or hanging up, as
# nohup does; what the tests start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that of several processes none ends long after the others."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fill a folder of a given name, once for all processes that share these tests; nobody may change what is in it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        done, beginning = base / name, base / f"{name}.unfinished"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                beginning.mkdir(parents=True, exist_ok=True)
                make(beginning)
                beginning.rename(done)
        return done

    return fill


@pytest.fixture(scope="session")
def checkpoint_path(once: Once) -> Path:
    """A small network with random weights whose norms have seen images, so that images and words matter."""
    return once("checkpoint", lambda folder: make_checkpoint().save(folder / "small.pth")) / "small.pth"


@pytest.fixture(scope="session")
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    """The same, read from its file."""
    return Checkpoint.load(checkpoint_path)


@pytest.fixture(scope="session")
def export_once(checkpoint_path: Path, once: Once) -> Callable[[Format], Path]:
    """From a format to a folder, named like it, with the small network's graphs in fp32; of AOTInductor, which compiles
    for a minute, the whole alone."""

    def export(kind: Format) -> Path:
        names = ["gin"] if kind.name == "aot" else GRAPHS

        def fill(folder: Path) -> None:
            build(Request(*read_checkpoint(checkpoint_path), "fp32", LIMITS["fp32"]), kind, folder, names)

        return once(kind.name, fill)

    return export


@pytest.fixture(scope="session")
def half(checkpoint_path: Path, once: Once) -> Path:
    """A repository that the small network was exported into in fp16, by the command."""

    def fill(folder: Path) -> None:
        assert onnx.main([str(checkpoint_path), "--precision", "fp16", "--repository", str(folder)]) == 0

    return once("fp16", fill)


def make_checkpoint() -> Checkpoint:
    """See `checkpoint_path`."""
    torch.manual_seed(0)
    network = GIN(SMALL, len(Vocabulary(WORDS))).train()
    ids = torch.randint(1, len(Vocabulary(WORDS)), (16, 5))
    with torch.no_grad():
        for _ in range(30):
            network(torch.rand(16, 3, 64, 64) * torch.rand(16, 3, 1, 1), ids, torch.randint(1, 6, (16,)))
        network.head.output.weight.mul_(5)
    return Checkpoint(SMALL, Vocabulary(WORDS), network.eval().state_dict(), presence=Presence(2.0, 1.0))


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

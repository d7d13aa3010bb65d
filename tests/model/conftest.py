"""The authors' checkpoints behind the records, with reproducible made-up weights."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

RECORDS = Path(__file__).parent.parent / "records"


def made_up(name: str, shape: list[int], seed: int) -> torch.Tensor:
    """The tensor that a generator seeded by (seed, crc32 of the name) gives, scaled by what the name says it is."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        values = 0.1 * random.standard_normal(shape)
    elif len(shape) == 1:
        scales = name.endswith("weight") and any(part in name for part in ("bn", "norm", "downsample.1"))
        values = float(scales) + 0.1 * random.standard_normal(shape)
    else:
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).reshape(shape)


def original_tensors(architecture: str) -> dict[str, torch.Tensor]:
    """The tensors of one of the authors' networks by their names."""
    shapes = json.loads((RECORDS / f"{architecture}_keys.json").read_text())
    return {name: made_up(name, shape, seed=7) for name, shape in shapes.items()}


def write_original(architecture: str, path: Path) -> Path:
    """A checkpoint as the authors save it, from a parallel module."""
    content = {
        "model_state_dict": {f"module.{name}": weight for name, weight in original_tensors(architecture).items()},
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "scheduler_state_dict": {},
        "num_it": 1234,
        "num_epoch": 10,
        "cfgtxt": json.dumps({"mdl_to_use": "ssd_vgg" if "vgg" in architecture else "retina"}),
        "best_met": torch.tensor(0.684),
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def original_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of GIN with ResNet-50."""
    return write_original("gin_resnet50", tmp_path_factory.mktemp("original") / "gin_resnet50.pth")


@pytest.fixture(scope="session", params=["zsgnet_resnet50", "zsgnet_vgg16"])
def zsgnet_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of ZSGNet with each of its backbones; the file is called as its record."""
    return write_original(request.param, tmp_path_factory.mktemp("original") / f"{request.param}.pth")

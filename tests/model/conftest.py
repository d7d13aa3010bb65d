"""The authors' checkpoint behind the record, with reproducible made-up weights."""

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


@pytest.fixture(scope="session")
def original_weights() -> dict[str, torch.Tensor]:
    """The authors' tensors by their names."""
    shapes = json.loads((RECORDS / "gin_resnet50_keys.json").read_text())
    return {name: made_up(name, shape, seed=7) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def original_path(original_weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the authors save it, from a parallel module."""
    path = tmp_path_factory.mktemp("original") / "original.pth"
    content = {
        "model_state_dict": {f"module.{name}": weight for name, weight in original_weights.items()},
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "scheduler_state_dict": {},
        "num_it": 1234,
        "num_epoch": 10,
        "cfgtxt": json.dumps({"mdl_to_use": "retina", "resize_img": [320, 320]}),
        "best_met": torch.tensor(0.684),
    }
    torch.save(content, path)
    return path

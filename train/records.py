"""What a run leaves behind for people: its settings, the versions it ran on, a line per epoch."""

import dataclasses
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from model.checkpoint import write_atomically
from train.config import TrainConfig

PACKAGES = ("torch", "torchvision", "numpy", "pillow")
HISTORY = "history.jsonl"


def write_settings(config: TrainConfig, out: Path) -> None:
    """`config.yaml`, which `--config` reads again, and `versions.json`."""
    settings = yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)
    write_atomically(settings.encode(), out / "config.yaml")
    versions = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    versions["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    write_atomically((json.dumps(versions, indent=1) + "\n").encode(), out / "versions.json")


def write_history(history: Sequence[Mapping[str, Any]], out: Path) -> None:
    """`history.jsonl`: one JSON object per epoch."""
    write_atomically("".join(json.dumps(line) + "\n" for line in history).encode(), out / HISTORY)


def epoch_line(line: Mapping[str, Any], is_best: bool) -> str:
    """An epoch in one line for the screen."""
    losses = " ".join(f"{name} {value:.4f}" for name, value in line["losses"].items())
    val = line["val"]
    skipped = f" | {line['skipped']} steps left out" if line["skipped"] else ""
    return (
        f"epoch {line['epoch']}: loss {losses} | val accuracy {val['accuracy']:.4f} mean IoU {val['mean_iou']:.4f} "
        f"reachable {val['reachable']:.4f} of {val['rows']} | {rate(line['images_per_second'])} "
        f"{line['seconds']:.0f} s{skipped}{' (best)' if is_best else ''}"
    )


def rate(images_per_second: float) -> str:
    """With a decimal where it says something."""
    return f"{images_per_second:.{1 if images_per_second < 10 else 0}f} images/s"


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML has."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        print(f"the version of {package} is not known", file=sys.stderr)
        return "unknown"

"""Samples per second of what a loader does, on one core.

    python benchmarks/data.py [--repeats N] [--record FILE]

Text and targets: an expression to word ids and a box to attention targets, ours in batches of 16 and in the authors'
formulation (of theirs without its two passes of spaCy, which would only slow it). Loader: a 500 x 375 JPEG decoded,
resized to 320 pixels, with its expression, in batches of 16, and a 4000 x 3000 one.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine, positive, record_file, write_record
from original_targets import original_targets
from PIL import Image
from rich.console import Console
from rich.table import Table

from model.boxes import xyxy_to_yxyx
from model.preparation import Preparation
from model.targets import attention_targets
from model.words import Vocabulary, split_words
from train.data.annotations import Row
from train.data.dataset import GroundingDataset, collate
from train.data.sampler import Visit

BATCH, SIZE = 16, 320
EXPRESSION = "the second man from the left in a red jacket"
WANTED = 500 / 16  # images per second and core: 500 on 16 cores


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Samples per second of what a loader does, on one core.")
    parser.add_argument("--repeats", type=positive, default=30, metavar="N", help="rounds (%(default)s)")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = make_ways(Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.repeats):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
    rates = {name: BATCH / statistics.median(values) for name, values in seconds.items()}
    ratio = rates["text and targets, ours"] / rates["text and targets, the authors' loop"]
    table = Table("one core", "samples/s")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.0f}")
    Console().print(table)
    print(f"text and targets: {ratio:.0f} times the authors' loop")
    print(f"500 x 375 pictures: {rates['loader, 500 x 375'] / WANTED:.1f} times what 500 images/s on 16 cores need")
    if arguments.record:
        record = {"repeats": arguments.repeats, **describe_machine()}
        record |= {"samples_per_second_and_core": rates, "text_and_targets_ratio": ratio}
        write_record(arguments.record, record)
    return 0


def make_ways(folder: Path) -> dict[str, Callable[[], object]]:
    """Each goes through 16 samples."""
    preparation = Preparation(SIZE, "bilinear", 50, Vocabulary(sorted(set(split_words(EXPRESSION)))))
    random = np.random.default_rng(0)
    corners = random.uniform(0, 200, (BATCH, 2))
    boxes = np.concatenate((corners, corners + random.uniform(20, 120, (BATCH, 2))), axis=1)
    shares = (boxes[:, [1, 0, 3, 2]] / SIZE).tolist()

    def ours() -> None:
        for _ in range(BATCH):
            preparation.words(EXPRESSION)
        true = xyxy_to_yxyx(torch.from_numpy(boxes).float(), torch.full((BATCH, 2), float(SIZE)))
        attention_targets(true, SIZE)

    def theirs() -> None:
        for box in shares:
            preparation.words(EXPRESSION)
            original_targets(tuple(box), SIZE)

    ways: dict[str, Callable[[], object]] = {
        "text and targets, ours": ours,
        "text and targets, the authors' loop": theirs,
    }
    for width, height in ((500, 375), (4000, 3000)):
        path = folder / f"{width}.jpg"
        coarse = Image.fromarray(random.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
        rows = [Row(number, path, (1, 1, 200, 200), (EXPRESSION,)) for number in range(BATCH)]
        dataset = GroundingDataset(rows, preparation, share_images=False, seed=0)
        ways[f"loader, {width} x {height}"] = lambda dataset=dataset: collate(  # type: ignore[misc]
            [dataset[Visit(0, number)] for number in range(BATCH)]
        )
    return ways


if __name__ == "__main__":
    sys.exit(main())

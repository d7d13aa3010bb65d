"""What GIN's two modules are worth: the network with and without them, on generated scenes.

    python benchmarks/ablation.py [--seeds N] [--record FILE]

Every variant is trained with the recipe of configs/ablation.yaml from each seed and asked about pictures that it has
not seen; a run for each core at a time. What the record holds already is not trained again, so the command may be
stopped and started. Prints a table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from machine import describe_machine, positive, record_file, write_record
from rich.console import Console
from rich.table import Table

from train.data.scenes import write_scenes

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "results" / "ablation.json"
RUNS = ROOT / "runs" / "ablation"
TEST_PICTURES, TEST_SEED = 1000, 3
VARIANTS = {
    "GIN": [],
    "GIN, diffusion transposed as in the authors' code": ["model.transposed_diffusion=true"],
    "without AFS": ["model.afs=false"],
    "without GARAN": ["model.garan=false"],
    "without both (ZSGNet)": ["model.afs=false", "model.garan=false"],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="What GIN's two modules are worth.")
    parser.add_argument("--seeds", type=positive, default=2, metavar="N", help="runs of each variant (%(default)s)")
    parser.add_argument("--record", type=record_file, default=RECORD, metavar="FILE", help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    record = json.loads(arguments.record.read_text()) if arguments.record.exists() else {"runs": []}
    test = RUNS / "test"
    if not (test / "scenes.csv").exists():
        write_scenes(test, TEST_PICTURES, TEST_SEED)
    wanted = [(name, seed) for seed in range(arguments.seeds) for name in VARIANTS]
    known = [(run["variant"], run["seed"]) for run in record["runs"]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(train_and_ask, *pair, test): pair for pair in wanted if pair not in known}
        for done in as_completed(running):
            name, seed = running[done]
            record["runs"].append({"variant": name, "seed": seed, **done.result()})
            record |= describe_machine() | {"test_pictures": TEST_PICTURES}
            write_record(arguments.record, record)
    show(record["runs"])
    return 0


def train_and_ask(name: str, seed: int, test: Path) -> dict[str, Any]:
    """Scores on the test pictures of a variant trained from a seed, on one core."""
    out = RUNS / f"{list(VARIANTS).index(name)}-{seed}"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    config = str(ROOT / "configs" / "ablation.yaml")
    places = [f"out={out}", f"data.scenes.folder={RUNS / 'scenes'}", f"seed={seed}", "resume=true"]
    command = [sys.executable, "-m", "train.run", "--config", config, *places, *VARIANTS[name]]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    command = [sys.executable, "-m", "train.evaluate", str(out / "last.pth"), str(test / "scenes.csv")]
    command += ["--images", str(test / "images"), "--predictions", str(out / "predictions.jsonl")]
    done = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Mean accuracy of each variant and of each of its seeds."""
    table = Table("network", "accuracy", "mean IoU", "by seed")
    for name in VARIANTS:
        mine = [run for run in runs if run["variant"] == name]
        if mine:
            means = [statistics.mean(run[score] for run in mine) for score in ("accuracy", "mean_iou")]
            seeds = " ".join(f"{run['accuracy']:.3f}" for run in mine)
            table.add_row(name, *(f"{mean:.3f}" for mean in means), seeds)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

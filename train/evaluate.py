"""Accuracy of a checkpoint on annotated pictures.

    python -m train.evaluate CKPT CSV --images DIR [--exchange]

The last line printed is JSON with `accuracy` (share of rows whose box has IoU >= 0.5 with the true one), `reachable`
(the same at the best-matching anchor) and `rows`.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from model.checkpoint import Checkpoint
from train.data.annotations import InvalidData, Row, check_pictures, read_rows
from train.data.loading import evaluation_loader
from train.loop import evaluate


def exchange_expressions(rows: Sequence[Row]) -> list[Row]:
    """Each row with the expression of the picture's next row that has another box; rows without one are left out.

    A network that reads now points elsewhere, so its accuracy against the old boxes is near zero.
    """
    pictures: dict[Path, list[Row]] = {}
    for row in rows:
        pictures.setdefault(row.image, []).append(row)
    exchanged = []
    for group in pictures.values():
        for index, row in enumerate(group):
            others = [other for other in group[index + 1 :] + group[:index] if other.box != row.box]
            if others:
                exchanged.append(dataclasses.replace(row, expressions=others[0].expressions))
    return exchanged


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description="Accuracy of a checkpoint.")
    parser.add_argument("checkpoint", metavar="CKPT")
    parser.add_argument("csv", metavar="CSV", help="annotations: img_id,bbox,query")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="loading processes (default: 2)")
    parser.add_argument(
        "--exchange",
        action="store_true",
        help="give each row the expression of another object of its picture: shows that the network reads",
    )
    arguments = parser.parse_args(argv)
    try:
        checkpoint = Checkpoint.load(arguments.checkpoint)
        rows = read_rows(arguments.csv, arguments.images)
        check_pictures(rows)
        if arguments.exchange:
            rows = exchange_expressions(rows)
            if not rows:
                raise InvalidData(f"{arguments.csv} has no picture with two boxes, so nothing can be exchanged")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = checkpoint.network().to(device)
        loader = evaluation_loader(rows, checkpoint.preparation, arguments.workers)
        shown = track(loader, "evaluating", console=Console(stderr=True), transient=True)
        scores = evaluate(network, shown if sys.stderr.isatty() else loader, device)
    except (OSError, ValueError) as error:
        print(f"train.evaluate: {error}", file=sys.stderr)
        return 2
    print(json.dumps(dataclasses.asdict(scores)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

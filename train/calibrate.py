"""Let a checkpoint's network say "not there": turn scores into the probability that the thing is in the picture.

    python -m train.calibrate CKPT CSV --images DIR

Asks about every row of the CSV, and about what is not there: the expressions of `NAME_absent.csv` (`img_id,query`)
beside `NAME.csv` if there is one, else those of other pictures, some of which may be true by chance. Scores become
probabilities by what half of the pictures teach, however many rows are of either kind; the other half measures how
often each threshold accepts what is not there and rejects what is. The calibration is written into CKPT. The last line
printed is JSON.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from model.checkpoint import Checkpoint
from model.command import run_command
from model.presence import Presence, logits
from train.data.annotations import ImageFolder, InvalidData, Row, read_table, refuse_surplus
from train.data.check import check_annotations, check_rows
from train.data.loading import evaluation_loader
from train.evaluation import evaluate
from train.network import move
from train.progress import track

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ABSENT_COLUMNS = ("img_id", "query")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.calibrate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="the calibration is written into it")
    parser.add_argument("csv", type=Path, metavar="CSV", help="annotations that were not trained on")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="loading processes (default: 2)")
    arguments = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _calibrate(arguments))


def _calibrate(arguments: argparse.Namespace) -> None:
    checkpoint = Checkpoint.load(arguments.checkpoint)
    rows, problems = check_annotations(arguments.csv, arguments.images, checkpoint.config.max_words)
    if problems:
        raise InvalidData(str(problems[0]))
    given = read_absent(arguments.csv, arguments.images, checkpoint.config.max_words)
    absent = given or exchange_pictures(rows)
    pictures = sorted({row.image for row in rows})
    if len(pictures) < 2:
        raise InvalidData(f"{arguments.csv} is about {len(pictures)} picture; half of them calibrate, half measure")
    learned = set(pictures[::2])
    held_out = [np.array([row.image not in learned for row in group], bool) for group in (rows, absent)]
    if any(out.all() or not out.any() for out in held_out):
        raise InvalidData(f"{arguments.csv}: what is not there has to be asked about pictures of either half")
    source = f"of {absent_file(arguments.csv)}" if given else "exchanged between pictures"
    print(
        f"what is there: {len(rows)} rows of {arguments.csv}; what is not: {len(absent)} rows {source}", file=sys.stderr
    )
    scores = [ask(checkpoint, group, arguments.workers) for group in (rows, absent)]
    presence = fit(*(part[~out] for part, out in zip(scores, held_out, strict=True)))
    report = measure(*(presence(part[out]) for part, out in zip(scores, held_out, strict=True)))
    dataclasses.replace(checkpoint, presence=presence).save(arguments.checkpoint)
    _show(report["thresholds"])
    print(f"told apart: {report['area']:.1%} of the pairs of one of each; by chance it would be 50 %", file=sys.stderr)
    print(json.dumps({**dataclasses.asdict(presence), **report}))


def absent_file(path: Path) -> Path:
    """`NAME_absent.csv` beside `NAME.csv`."""
    return path.with_name(f"{path.stem}_absent.csv")


def read_absent(path: Path, images: str | Path, max_words: int) -> list[Row]:
    """Rows that name nothing in their picture, from the CSV's `absent_file`; none without such a file.

    Their boxes mean nothing. Raises InvalidData or OSError.
    """
    file = absent_file(path)
    if not file.exists():
        return []
    rows, folder = [], ImageFolder(Path(images))
    for number, (line, fields) in enumerate(read_table(file, ABSENT_COLUMNS)):
        picture, query = (fields[name] for name in ABSENT_COLUMNS)
        try:
            refuse_surplus(fields)
            if not picture or not query:
                raise ValueError(f"it must have {' and '.join(ABSENT_COLUMNS)}")
            rows.append(Row(number, folder.find(picture), (0.0, 0.0, 1.0, 1.0), (query,), line))
        except ValueError as error:
            raise InvalidData(f"{file}, line {line}: {error}") from None
    _, problems = check_rows(rows, file, max_words)
    if problems:
        raise InvalidData(str(problems[0]))
    return rows


def exchange_pictures(rows: Sequence[Row]) -> list[Row]:
    """Each row's expressions about the picture of a row half the file away, if that is another one."""
    moved = [rows[(place + len(rows) // 2) % len(rows)].image for place in range(len(rows))]
    pairs = zip(rows, moved, strict=True)
    return [dataclasses.replace(row, image=image) for row, image in pairs if image != row.image]


def ask(checkpoint: Checkpoint, rows: list[Row], workers: int) -> np.ndarray:
    """The network's score of each row. Raises ValueError where there are some that are no numbers."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = [dataclasses.replace(row, number=place) for place, row in enumerate(rows)]
    loader = evaluation_loader(rows, checkpoint.preparation, workers)
    shown = track(loader, "asking: batch", len(loader))
    return evaluate(move(checkpoint.network(), device), shown, device).checked().scores.numpy()


def fit(present: np.ndarray, absent: np.ndarray) -> Presence:
    """The calibration that makes these scores likeliest, each side weighing as much as the other."""
    values = torch.from_numpy(np.concatenate([logits(present), logits(absent)]))
    there = torch.cat([torch.ones(len(present)), torch.zeros(len(absent))]).double()
    weights = torch.where(there == 1, 0.5 / len(present), 0.5 / len(absent))
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = nn.functional.binary_cross_entropy_with_logits(
            line[0] * values + line[1], there, weights, reduction="sum"
        )
        value.backward()
        return value

    optimizer.step(loss)
    scale, offset = line.detach().tolist()
    return Presence(scale, offset)


def measure(present: np.ndarray, absent: np.ndarray) -> dict[str, Any]:
    """What probabilities of what is there and what is not are worth.

    area: share of pairs of one of each where the first has the higher probability. thresholds: at each, the share of
    `absent` at or above it and the share of `present` below it.
    """
    order = np.searchsorted(np.sort(absent), present, side="left"), np.searchsorted(np.sort(absent), present, "right")
    area = float((order[0] + order[1]).mean() / 2 / len(absent))
    rates = [
        {
            "threshold": threshold,
            "false_accept": round(float((absent >= threshold).mean()), 4),
            "false_reject": round(float((present < threshold).mean()), 4),
        }
        for threshold in THRESHOLDS
    ]
    return {"area": round(area, 4), "present": len(present), "absent": len(absent), "thresholds": rates}


def _show(rates: Sequence[dict[str, float]]) -> None:
    table = Table("threshold", "accepts what is not there", "rejects what is")
    for rate in rates:
        table.add_row(f"{rate['threshold']:.1f}", f"{rate['false_accept']:.1%}", f"{rate['false_reject']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Accuracy on annotated pictures, of a checkpoint or of a file of predictions.

    python -m train.evaluate CKPT CSV --images DIR          asks the network and writes predictions
    python -m train.evaluate PREDICTIONS CSV                scores a file of predictions, as the originals' script does

The last line printed is JSON. For a checkpoint: `accuracy` (share of rows whose box has IoU >= 0.5 with the true one),
the same at 0.25 and 0.75, `mean_iou`, `reachable` (accuracy of the boxes at the best-matching anchors) and `rows`.
Several processes share the work: torchrun --nproc_per_node=N -m train.evaluate ...
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from model.checkpoint import Checkpoint
from model.command import run_command
from model.preparation import Preparation
from train.data.annotations import InvalidData, Row, read_boxes, read_table
from train.data.check import check_annotations
from train.data.loading import evaluation_loader
from train.evaluation import Answers, Scores, breakdown, evaluate
from train.network import move
from train.predictions import Prediction, read_predictions, score_predictions, write_predictions
from train.processes import by_first_rank, process_group
from train.progress import track

LENGTHS = (("1", 1), ("2", 2), ("3", 3), ("4-5", 5), ("6-10", 10), ("over 10", math.inf))  # most words of each group
ZIP, PICKLE = b"PK", b"\x80"  # how what torch.save writes begins, and what it wrote before PyTorch 1.6
TIMEOUT = 1800.0  # seconds to wait for another process
NAMED = 10  # unknown words, the most frequent ones


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
    arguments = _parse(argv)
    return run_command("python -m train.evaluate", lambda: _evaluate(arguments))


def _evaluate(arguments: argparse.Namespace) -> None:
    with open(arguments.what, "rb") as file:
        begins = file.read(len(ZIP))
    old = begins.startswith(PICKLE) and Path(arguments.what).suffix != ".pkl"  # which predictions may have
    (_ask if begins == ZIP or old else _score)(arguments)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description="Accuracy on annotated pictures.")
    parser.add_argument("what", metavar="CKPT|PREDICTIONS", help="a checkpoint, or a file of predictions")
    parser.add_argument("csv", metavar="CSV", help="annotations: img_id,bbox,query")
    parser.add_argument("--images", metavar="DIR", help="folder of the pictures, which a checkpoint needs")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="loading processes (default: 2)")
    parser.add_argument(
        "--predictions",
        default="predictions.jsonl",
        metavar="FILE",
        help="where to write what the network answered: JSON lines, or the originals' pickle if it ends in .pkl "
        "(default: predictions.jsonl)",
    )
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="rows that cannot be used; skipped, they count as wrong",
    )
    parser.add_argument(
        "--exchange",
        action="store_true",
        help="give each row the expression of another object of its picture: shows that the network reads",
    )
    return parser.parse_args(argv)


def _ask(arguments: argparse.Namespace) -> None:
    """Ask a checkpoint's network, on one process or as one of torchrun's."""
    if arguments.images is None:
        raise InvalidData("a checkpoint needs --images DIR, the folder of the pictures")
    distributed = "RANK" in os.environ
    own = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with process_group(TIMEOUT) if distributed else contextlib.nullcontext(own) as device:
        first = not distributed or dist.get_rank() == 0
        checkpoint = Checkpoint.load(arguments.what)
        categories = read_categories(arguments.csv)
        rows, unusable = _rows(arguments, checkpoint.config.max_words, first)
        if first:
            _report_unknown_words(rows, checkpoint.preparation)
        loader = evaluation_loader(rows, checkpoint.preparation, arguments.workers)
        shown = track(loader, "evaluating: batch", len(loader), first)
        answers = evaluate(move(checkpoint.network(), device), shown, device).checked()
        if first:
            _print_breakdown("words", breakdown(answers, by_length(answers)))
            _print_breakdown("category", breakdown(answers, categories))
            print(json.dumps(dataclasses.asdict(Scores.of(answers, unusable))))
            write_predictions(arguments.predictions, _predictions(answers))


def _score(arguments: argparse.Namespace) -> None:
    """Score a file of predictions."""
    print(json.dumps(score_predictions(read_predictions(arguments.what), read_boxes(arguments.csv))))


def _rows(arguments: argparse.Namespace, max_words: int, first: bool) -> tuple[list[Row], int]:
    """Rows to ask, and how many cannot be. The first rank looks, and all hear the same."""
    rows, problems = by_first_rank(lambda: check_annotations(arguments.csv, arguments.images, max_words))
    if problems and arguments.on_error == "stop":
        raise InvalidData(f"{problems[0]} ({len(problems)} such rows; --on-error skip goes on without them)")
    if problems and first:
        print(*problems, sep="\n", file=sys.stderr)
    if arguments.exchange:
        rows = exchange_expressions(rows)
        if not rows:
            raise InvalidData(f"{arguments.csv} has no picture with two boxes, so nothing can be exchanged")
    return rows, len(problems)


def _report_unknown_words(rows: Sequence[Row], preparation: Preparation) -> None:
    unknown = [sorted(set(preparation.unknown_words(row.expressions[0]))) for row in rows]
    concerned = sum(map(bool, unknown))
    if concerned:
        counts = Counter(word for words in unknown for word in words)
        named = ", ".join(f"{word} ({count})" for word, count in counts.most_common(NAMED))
        print(
            f"{concerned} of {len(rows)} expressions have words that the network does not know, which are to it as if "
            f"not said: {named}{', ...' if len(counts) > NAMED else ''}",
            file=sys.stderr,
        )


def read_categories(path: str | Path) -> dict[int, str]:
    """Row number to category from `NAME_categories.csv` beside `NAME.csv`; nothing if there is no such file."""
    file = Path(path).with_name(f"{Path(path).stem}_categories.csv")
    if not file.exists():
        return {}
    categories = {}
    for line, fields in read_table(file, ("row", "category")):
        row, category = fields["row"], fields["category"]
        if not (row or "").isdecimal() or category is None:
            raise InvalidData(f"{file}, line {line}: it must have the number of a row and a category")
        categories[int(row)] = category
    return categories


def _predictions(answers: Answers) -> list[Prediction]:
    columns = answers.rows.tolist(), answers.boxes.tolist(), answers.scores.tolist()
    return [Prediction(row, (x1, y1, x2, y2), score) for row, (x1, y1, x2, y2), score in zip(*columns, strict=True)]


def by_length(answers: Answers) -> dict[int, str]:
    """Row number to the group of its number of words."""
    numbers = zip(answers.rows.tolist(), answers.words.tolist(), strict=True)
    return {row: next(name for name, most in LENGTHS if words <= most) for row, words in numbers}


def _print_breakdown(title: str, groups: Mapping[str, Scores]) -> None:
    if not groups:
        return
    table = Table(title, "rows", "IoU >= 0.25", ">= 0.5", ">= 0.75", "mean IoU")
    for name, scores in sorted(groups.items(), key=lambda item: (len(item[0]), item[0])):
        values = scores.accuracy_25, scores.accuracy, scores.accuracy_75, scores.mean_iou
        table.add_row(name, str(scores.rows), *(f"{value:.4f}" for value in values))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Draw the curves of runs.

    python -m train.plot RUN... [--out FILE.png]

RUN is the folder of a run (its `out`). One picture with the loss, the validation accuracy and the learning rate over
the epochs, one colour per run.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from model.checkpoint import write_atomically
from model.command import run_command
from train.data.annotations import InvalidData
from train.records import HISTORY

PANELS = (
    ("loss", lambda line: line["losses"]["total"]),
    ("validation accuracy (IoU ≥ 0.5)", lambda line: line["val"]["accuracy"]),
    ("learning rate", lambda line: line["lr"]),
)
# Okabe and Ito's colours, which every eye tells apart
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")


def read_history(run: Path) -> list[dict[str, Any]]:
    """The epochs of a run. Raises InvalidData or OSError."""
    path = run / HISTORY
    lines = []
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            line = json.loads(text)
            for _, value in PANELS:
                float(value(line))
            float(line["epoch"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidData(f"{path}, line {number} is not an epoch of a run: {error!r}") from None
        lines.append(line)
    if not lines:
        raise InvalidData(f"{path} has no epochs yet")
    return lines


def draw(histories: dict[str, list[dict[str, Any]]]) -> bytes:
    """Curves by the runs' names, as PNG."""
    matplotlib.rcParams["font.size"] = 10
    figure = Figure(figsize=(13, 4), layout="constrained")
    for axes, (title, value) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for index, (name, lines) in enumerate(histories.items()):
            epochs, values = [line["epoch"] for line in lines], [value(line) for line in lines]
            style = {"color": COLOURS[index % len(COLOURS)], "linestyle": "-" if index < len(COLOURS) else "--"}
            axes.plot(epochs, values, marker="o", markersize=3, linewidth=1.5, label=name, **style)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.plot", description="Draw the curves of runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), metavar="FILE", help="(default: curves.png)")
    arguments = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _plot(arguments.runs, arguments.out))


def _plot(runs: Sequence[Path], out: Path) -> None:
    write_atomically(draw({str(run): read_history(run) for run in runs}), out)
    print(out)


if __name__ == "__main__":
    sys.exit(main())

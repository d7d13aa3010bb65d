"""Turn a publisher's own files into the CSVs that training reads.

    python -m train.data.prepare NAME --source DIR --out DIR [--split-by AUTHOR]

Writes `train.csv`, `train_flat.csv`, `val.csv` and the test splits (`img_id,bbox,query`), and prints how many images,
boxes and expressions each has, and what was dropped and why. Files are written after all have been read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from model.command import run_command
from train.data.annotations import InvalidData
from train.data.prepare import flickr30k, refer, visual_genome, zero_shot
from train.data.prepare.tables import Splits, summarise, write_splits

ZERO_SHOT = ("flickr30k_c0", "flickr30k_c1")
VISUAL_GENOME = ("vg_split_c2", "vg_split_c3")
NAMES = ("flickr30k", "refclef", *ZERO_SHOT, *VISUAL_GENOME, "refcoco", "refcoco+", "refcocog")


def prepare(name: str, source: Path, split_by: str | None) -> Splits:
    """Read a dataset. Raises InvalidData or OSError."""
    if name in refer.SPLIT_BY:
        return refer.prepare(name, source, split_by)
    if split_by is not None:
        raise InvalidData(f"--split-by is for {', '.join(refer.SPLIT_BY)}; {name} has one split")
    if name in ZERO_SHOT:
        return zero_shot.prepare(name, source)
    return visual_genome.prepare(name, source) if name in VISUAL_GENOME else flickr30k.prepare(source)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.data.prepare", description="Turn a publisher's own files into CSVs for training."
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="the publisher's files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write the CSVs")
    parser.add_argument("--split-by", metavar="AUTHOR", help="who split it: google or umd (default) for refcocog, ...")
    arguments = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _prepare(arguments))


def _prepare(arguments: argparse.Namespace) -> None:
    splits = prepare(arguments.name, arguments.source, arguments.split_by)
    write_splits(splits, arguments.out)
    Console().print(summarise(splits))


if __name__ == "__main__":
    sys.exit(main())

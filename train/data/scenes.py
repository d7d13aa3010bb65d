"""Generate scenes: pictures of coloured shapes with expressions that need reading.

    python -m train.data.scenes --out DIR --count N --seed S

Writes DIR/images/*.jpg, DIR/scenes.csv (`img_id,bbox,query`, several rows per picture), DIR/scenes_categories.csv
(`row,category`: what kind of meaning each row has) and DIR/scenes_absent.csv (`img_id,query`: expressions that name
nothing in the picture). The same seed gives the same files.
"""

import argparse
import csv
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

import numpy as np

from model.command import run_command
from train.data.drawing import draw_scene
from train.data.expressions import Meaning
from train.data.wording import describe, describe_absent
from train.data.world import COUNTS, EXPRESSIONS, Scene, Thing, lay_out
from train.progress import track

Described = tuple[str, Meaning, Thing]  # an expression, what it means, the thing it picks
USUAL = 4  # expressions per picture
QUALITY = 90  # of the JPEG files


def make_scene(seed: int, number: int, expressions: int) -> tuple[Scene, list[Described], np.random.Generator]:
    """Scene `number` of a seed with its expressions, their meanings and the things meant, and the generator that draws
    it."""
    random = np.random.default_rng([seed, number])
    while True:
        scene = lay_out(random)
        described = describe(scene, expressions, random) if len(scene.things) >= COUNTS[0] else None
        if described is not None:
            return scene, described, random


def make_absent(scene: Scene, seed: int, number: int, expressions: int) -> list[str]:
    """Up to so many expressions that name nothing in scene `number` of a seed, nearly always some."""
    random = np.random.default_rng([seed, number, 1])
    return describe_absent(scene, lay_out(random), expressions, random)


def write_scenes(out: Path, count: int, seed: int, expressions: int = USUAL, workers: int | None = None) -> Path:
    """Write `count` pictures and their rows; returns the CSV's path. Raises FileExistsError if it is there already.

    The CSV is written last, so where it is, everything is.
    """
    path = out / "scenes.csv"
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    (out / "images").mkdir(parents=True, exist_ok=True)
    write = partial(_write_one, out / "images", seed, expressions)
    pool = ProcessPoolExecutor(workers or os.cpu_count(), initializer=_end_with_parent)
    try:
        # Ctrl-C at a terminal reaches all processes. The pool's inherit that it is blocked and leave it to this one,
        # which must not be interrupted either while it hands out the work.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            written = pool.map(write, range(count), chunksize=16)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        scenes = list(track(written, "drawing scenes:", count))
    finally:
        pool.shutdown(cancel_futures=True)
    rows = [(name, list(thing.box), words) for name, described, _ in scenes for words, _, thing in described]
    kinds = [meaning.kind for _, described, _ in scenes for _, meaning, _ in described]
    _write_csv(out / "scenes_categories.csv", ("row", "category"), enumerate(kinds))
    absent = [(name, words) for name, _, absent in scenes for words in absent]
    _write_csv(out / "scenes_absent.csv", ("img_id", "query"), absent)
    _write_csv(path, ("img_id", "bbox", "query"), rows)
    return path


def _end_with_parent() -> None:
    """A process of the pool would wait for work for ever after this one was killed, so it watches for that."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_one(images: Path, seed: int, expressions: int, number: int) -> tuple[str, list[Described], list[str]]:
    """Draw one scene; returns its file's name, what is said of it and what would name nothing in it."""
    scene, described, random = make_scene(seed, number, expressions)
    name = f"{number:06d}.jpg"
    draw_scene(scene, random).save(images / name, quality=QUALITY)
    return name, described, make_absent(scene, seed, number, expressions)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    temporary = path.with_suffix(".part")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    temporary.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.data.scenes", description="Generate scenes.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="pictures")
    parser.add_argument("--seed", type=int, required=True, metavar="S", help="0 or more")
    parser.add_argument("--expressions", type=int, default=USUAL, metavar="K", help="per picture (default: 4)")
    arguments = parser.parse_args(argv)
    fewest, most = EXPRESSIONS
    if arguments.count < 1 or arguments.seed < 0 or not fewest <= arguments.expressions <= most:
        parser.error(f"--count must be 1 or more, --seed 0 or more, --expressions {fewest} to {most}")
    return run_command(parser.prog, lambda: _write(arguments))


def _write(arguments: argparse.Namespace) -> None:
    print(write_scenes(arguments.out, arguments.count, arguments.seed, arguments.expressions))


if __name__ == "__main__":
    sys.exit(main())

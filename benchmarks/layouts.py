"""Why `gin` is one model in one process: other layouts of the same network, other caches, other sizes of batches.

    python benchmarks/layouts.py [CKPT] [--blocks N] [--seconds S] [--record FILE]

One server holds them all: `gin`; an ensemble of a Python model that prepares and the whole network in the backend
`onnxruntime`; a Python model that prepares and calls that network (BLS); the network alone, for a client that prepares;
the ensemble with Triton's response cache; and `gin` with other limits of what one run answers. With one caller all are
asked in turn, block after block; then callers ask each as fast as they are answered.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tritonclient.grpc as triton
from machine import CHECKPOINT, checkpoint_file, describe_machine, duration, positive, record_file, write_record
from rich.console import Console
from rich.table import Table
from served import CALLS, TRITON, build_repository, example, in_blocks, summarise, unseen
from serving import closed_loop

from export import onnx
from export.graphs import INPUTS
from export.manifest import write_manifest
from model.checkpoint import Checkpoint
from serve import Server
from serve.repository import Selection

BATCHES = (1, 4, 8, 16, 32)  # limits of `batch_expressions`
CALLERS = 16
CACHE_BYTES = 2**28

OTHERS = Path(__file__).parent / "other_layouts"  # models beside those that the export fills


class LayoutServer(Server):
    """A server of whatever the repository holds, with a response cache."""

    def __init__(self, repository: Path) -> None:
        super().__init__(repository, grpc_port=0, http_port=0, metrics_port=0)

    def _select(self, *_: object) -> Selection:
        names = sorted(path.parent.name for path in self.repository.glob("*/config.pbtxt"))
        return Selection(tuple(name for name in names if name != "gin_torchscript"), {})

    def _arguments(self, backends: Path) -> list[str]:
        caches = backends.parent / "caches"
        shutil.copytree(self.program.parent.parent / "caches", caches, dirs_exist_ok=True)
        cache = [f"--cache-config=local,size={CACHE_BYTES}", f"--cache-directory={caches}"]
        return [*super()._arguments(backends), *cache]


def add_layouts(repository: Path) -> None:
    """All but `gin` and `gin_onnx`, which were exported."""
    for other in OTHERS.iterdir():
        version = shutil.copytree(other, repository / other.name) / "1"
        version.mkdir(exist_ok=True)
        write_manifest(version, {}, {})
    config = (repository / "gin" / "config.pbtxt").read_text()
    for most in BATCHES:
        name = f"gin_batch{most}"
        shutil.copytree(repository / "gin", repository / name)
        limited = re.sub(r'(key: "batch_expressions" value \{ string_value: )"\d+"', rf'\1"{most}"', config)
        (repository / name / "config.pbtxt").write_text(limited.replace('name: "gin"', f'name: "{name}"'))


def asking(client: triton.InferenceServerClient, model: str, image: Callable[[], bytes], words: Sequence[str]) -> Any:
    """A way to ask a model that takes a file and expressions."""
    expressions = np.array([text.encode() for text in words], dtype=np.object_)
    outputs = [triton.InferRequestedOutput(name) for name in ("BOX", "SCORE")]

    def ask() -> np.ndarray:
        inputs = [triton.InferInput("IMAGE", [1], "BYTES"), triton.InferInput("EXPRESSION", [len(words)], "BYTES")]
        inputs[0].set_data_from_numpy(np.array([image()], dtype=np.object_))
        inputs[1].set_data_from_numpy(expressions)
        return client.infer(model, inputs, outputs=outputs).as_numpy("BOX")

    return ask


def preparing(
    client: triton.InferenceServerClient, checkpoint: Checkpoint, picture: bytes, words: Sequence[str]
) -> Any:
    """A client that prepares the network's inputs itself."""
    preparation = checkpoint.preparation
    outputs = [triton.InferRequestedOutput(name) for name in ("boxes", "scores")]

    def ask() -> np.ndarray:
        pixels, size = preparation.image(unseen(picture))
        ids, lengths = preparation.expressions(words)
        arrays = pixels[None], ids, lengths, np.zeros(len(ids), np.int64), np.array([size], np.int64)
        kinds = ("UINT8", *["INT64"] * 4)
        named = zip(INPUTS, kinds, arrays, strict=True)
        inputs = [triton.InferInput(name, a.shape, kind).set_data_from_numpy(a) for name, kind, a in named]
        return client.infer("gin_onnx", inputs, outputs=outputs).as_numpy("boxes")

    return ask


def measure(checkpoint: Checkpoint, path: Path, blocks: int, seconds: float) -> dict[str, Any]:
    """All figures; times in milliseconds."""
    picture, expression = example()
    eight = [f"{expression} {'second ' * number}" for number in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        repository = build_repository(path, Path(folder), onnx.FORMAT)
        add_layouts(repository)
        with (
            LayoutServer(repository) as server,
            triton.InferenceServerClient(f"{server.address}:{server.grpc_port}") as client,
        ):

            def new(model: str, words: Sequence[str]) -> Any:
                return asking(client, model, lambda: unseen(picture), words)

            def known(model: str, words: Sequence[str]) -> Any:
                return asking(client, model, lambda: picture, words)

            layouts = {
                "one process (gin)": lambda words: new("gin", words),
                "ensemble": lambda words: new("ensemble", words),
                "Python model that calls the network (BLS)": lambda words: new("bls", words),
                "client prepares": lambda words: preparing(client, checkpoint, picture, words),
            }
            count = iter(range(10**9))

            def other(model: str) -> Any:
                """Each time another expression about the known picture."""
                return lambda: known(model, [f"{expression} {'second ' * (next(count) % 40)} {next(count)}"])()

            caches = {
                "new picture, gin": new("gin", [expression]),
                "new picture, ensemble": new("ensemble", [expression]),
                "new picture, ensemble with response cache": new("cached", [expression]),
                "known question, gin": known("gin", [expression]),
                "known question, ensemble with response cache": known("cached", [expression]),
                "other expression about a known picture, gin": other("gin"),
                "other expression about a known picture, ensemble with response cache": other("cached"),
            }
            alone = {}
            for number, words in ((1, [expression]), (8, eight)):
                ways = {name: layout(words) for name, layout in layouts.items()}
                assert_same(ways)
                alone[f"{number} expressions"] = summaries(in_blocks(ways, blocks))
            cached = summaries(in_blocks(caches, blocks))
            one = {name: closed_loop(layout([expression]), CALLERS, seconds) for name, layout in layouts.items()}
            batches = {
                str(most): closed_loop(new(f"gin_batch{most}", [expression]), CALLERS, seconds) for most in BATCHES
            }
    return {"one_caller": alone, "caches": cached, "callers": CALLERS, "many_callers": one, "batches": batches}


def assert_same(ways: dict[str, Callable[[], np.ndarray]]) -> None:
    """All layouts answer the same boxes."""
    first, *others = (way() for way in ways.values())
    for boxes in others:
        np.testing.assert_allclose(boxes, first, atol=0.05)


def summaries(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, p90 and p99 of each way."""
    return {name: summarise(values) for name, values in samples.items()}


def show(figures: dict[str, Any]) -> None:
    """Tables on screen."""
    console = Console(width=110 if not sys.stdout.isatty() else None)
    for title, rows in {**figures["one_caller"], "caches": figures["caches"]}.items():
        table = Table(f"one caller, {title}", "median ms", "p90", "p99")
        for name, row in rows.items():
            table.add_row(name, *(f"{row[key]:.2f}" for key in ("median", "p90", "p99")))
        console.print(table)
    table = Table(f"{CALLERS} callers", "per second", "median ms", "p90", "p99", "refused")
    batches = {f"gin, at most {most} expressions in one run": row for most, row in figures["batches"].items()}
    for name, row in {**figures["many_callers"], **batches}.items():
        times = (f"{row.get(key, float('nan')):.1f}" for key in ("median", "p90", "p99"))
        table.add_row(name, f"{row['per_second']:.1f}", *times, str(row["refused"]))
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Layouts of the served model compared.")
    parser.add_argument(
        "checkpoint", nargs="?", type=checkpoint_file, default=CHECKPOINT, metavar="CKPT", help="(%(default)s)"
    )
    parser.add_argument("--blocks", type=positive, default=4, metavar="N", help="with one caller (%(default)s)")
    parser.add_argument("--seconds", type=duration, default=5, metavar="S", help="of each loop (%(default)s)")
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    checkpoint = Checkpoint.load(arguments.checkpoint)
    figures = measure(checkpoint, arguments.checkpoint, arguments.blocks, arguments.seconds)
    show(figures)
    if arguments.record:
        record = {
            "checkpoint": arguments.checkpoint.name,
            "calls": CALLS * arguments.blocks,
            "seconds": arguments.seconds,
        }
        record |= {**describe_machine(onnxruntime=onnxruntime.__version__, triton=TRITON), **figures}
        write_record(arguments.record, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())

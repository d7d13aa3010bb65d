"""Configurations of the served models, all from here: `render` gives the text of a model's config.pbtxt.

    python -m export.configurations

writes those that are committed. An export writes that of the model which it fills, under whatever name, unless somebody
edited it.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from export.graphs import ANSWERS, INPUTS
from model.checkpoint import write_atomically

REPOSITORY = Path(__file__).parent.parent / "triton_repo"
COMMITTED = ("gin", "gin_onnx", "gin_torchscript")
CONFIG = "config.pbtxt"
DEMO_SIZE = 128  # pixels: the input of checkpoints/demo.pth
ASKED = ("IMAGE", "EXPRESSION", "TOP_K")
ANSWERED = ("BOX", "SCORE", "ATTENTION", "PRESENCE", "FOUND", "UNKNOWN", "TOP_BOX", "TOP_SCORE")
OPTIONAL = ("TOP_K",)
WARM_UPS = (1, 8)  # expressions
WARM_UP_WORDS = 4
LENGTHS = "lengths_{}"  # file in the folder `warmup` of a model
SIDE, CELLS = "S", "S/8"  # pixels of the input, and cells of the finest map
TENSORS: dict[str, tuple[str, tuple[int | str, ...], str]] = {  # type, sizes, and what they are; -1 is any
    "IMAGE": ("STRING", (1,), "bytes of a JPEG, PNG, WebP or GIF file"),
    "EXPRESSION": ("STRING", (-1,), "N sentences, UTF-8"),
    "BOX": ("FP32", (-1, 4), "N, x1 y1 x2 y2 in pixels of the upright image"),
    "SCORE": ("FP32", (-1,), "N, 0..1"),
    "TOP_K": ("INT32", (1,), "boxes for each expression: 1 (unless given) to 10"),
    "ATTENTION": ("FP32", (-1, -1, -1), "N, h, w, 0..1: where the network looked"),
    "PRESENCE": ("FP32", (-1,), "N, how probably it is there; NaN: not calibrated"),
    "FOUND": ("BOOL", (-1,), "N, false: below presence_threshold"),
    "UNKNOWN": ("STRING", (-1,), "N, words that the network does not know, by spaces"),
    "TOP_BOX": ("FP32", (-1, -1, 4), "N, TOP_K: best boxes that overlap little"),
    "TOP_SCORE": ("FP32", (-1, -1), "N, TOP_K; 0: there are no more boxes"),
    "images": ("UINT8", (-1, SIDE, SIDE, 3), "B, S, S, RGB"),
    "expression_ids": ("INT64", (-1, -1), "N, T"),
    "lengths": ("INT64", (-1,), "N"),
    "image_index": ("INT64", (-1,), "N, which image each expression is about"),
    "image_sizes": ("INT64", (-1, 2), "B, height and width of the original images"),
    "boxes": ("FP32", (-1, 4), "N, x1 y1 x2 y2 in pixels of the original image"),
    "scores": ("FP32", (-1,), "N, 0..1"),
    "attention": ("FP32", (-1, CELLS, CELLS), "N, S/8, S/8, 0..1"),
    "anchors": ("INT64", (-1,), "N, which anchor won"),
}

GIN = """# One image and N expressions about it to N boxes, in one process: the image part runs once per image, and
# different images and expressions of requests that wait together are answered together (serve/answering). Requests
# join inside the model, where they need no batch axis, never wait for company, and are refused when there are too many.
# So Triton's own batcher is left out: without a batch axis its scheduler now and then sleeps half a second on a queue.
name: "{name}"
backend: "python"
max_batch_size: 0
{tensors}
# One process, for it holds the cache of features. It runs on the GPU where there is one, else on all cores; of several
# GPUs each has its own process and cache.
instance_group [ {{ count: 1 }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
parameters [
  # Expressions that one run answers at most, unless a single request has more. With 16 callers on two cores, runs of
  # 4 to 32 answer a quarter more per second than runs of one, all alike within the measurement's noise
  # (benchmarks/results/layouts-cpu.json).
  {{ key: "batch_expressions" value {{ string_value: "8" }} }},
  # Requests that may be unanswered at once; more are refused at once: UNAVAILABLE.
  {{ key: "waiting_requests" value {{ string_value: "64" }} }},
  # Features of the images that were asked about last; an image of ResNet-50 at 320 pixels takes 13 MB.
  {{ key: "feature_cache_bytes" value {{ string_value: "268435456" }} }},
  # Less probable things are not FOUND. With the demo network at 0.5: 14.7% of what is not there is FOUND, 4.4% of what
  # is there is not; at 0.9: 3.0% and 48.3% (benchmarks/results/presence-demo.json).
  {{ key: "presence_threshold" value {{ string_value: "0.5" }} }}
]
"""

ENTRY = '''"""Triton's way into serve/answering."""

import os
import sys
from pathlib import Path

# Triton's embedded interpreter ignores PYTHONPATH. What it lacks is taken from the checkout around this file.
ROOT = str(Path(__file__).resolve().parents[3])
sys.path[:0] = filter(None, [*os.environ.get("PYTHONPATH", "").split(os.pathsep), ROOT])

from serve.answering.triton import TritonPythonModel  # noqa: E402, F401
'''  # model.py of every version of `gin`

NETWORK = """# The whole network, for clients that prepare its inputs themselves. The file is written by
# `{command}`.{more}
name: "{name}"
backend: "{backend}"
max_batch_size: 0
{tensors}
# Two: what one does on one core, the other fills, and with a single one Triton's scheduler sleeps half a second on
# its queue now and then.
instance_group [ {{ count: 2 }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
dynamic_batching {{ default_queue_policy {{ max_queue_size: 64 }} }}  # for the queue's limit
{warm_up}
"""
NAMING = """ Inputs go by the names of its arguments, outputs by name__position, as
# NVIDIA's PyTorch backend wants it."""


def render(name: str, kind: str, image_size: int) -> str:
    """The configuration of a model called `name`. kind: one of `COMMITTED`. image_size: side of the input in pixels."""
    if kind == "gin":
        tensors = _tensors("input", ASKED, image_size) + "\n" + _tensors("output", ANSWERED, image_size)
        return GIN.format(name=name, tensors=tensors)
    onnx = kind == "gin_onnx"
    outputs = ANSWERS if onnx else [f"{output}__{place}" for place, output in enumerate(ANSWERS)]
    return NETWORK.format(
        name=name,
        backend="onnxruntime" if onnx else "pytorch",
        command=f"python -m export.{kind.removeprefix('gin_')}",
        more="" if onnx else NAMING,
        tensors=_tensors("input", INPUTS, image_size) + "\n" + _tensors("output", outputs, image_size),
        warm_up="\n".join(_warm_up(count, image_size) for count in WARM_UPS),
    )


def _tensors(kind: str, names: Iterable[str], image_size: int) -> str:
    """NVIDIA's ONNX Runtime backend wants every size that a file fixes."""
    sides: dict[int | str, int] = {SIDE: image_size, CELLS: image_size // 8}
    lines = []
    for name in names:
        data_type, sizes, meaning = TENSORS[name.split("__")[0]]
        dims = ", ".join(str(sides.get(size, size)) for size in sizes)
        optional = " optional: true" if name in OPTIONAL else ""
        lines.append((f'  {{ name: "{name}" data_type: TYPE_{data_type} dims: [ {dims} ]{optional} }}', meaning))
    ends = [","] * (len(lines) - 1) + [""]
    width = max(len(line) for line, _ in lines) + 3
    body = [f"{line}{end}".ljust(width) + f"# {meaning}" for (line, meaning), end in zip(lines, ends, strict=True)]
    return "\n".join([f"{kind} [", *body, "]"])


def _warm_up(expressions: int, image_size: int) -> str:
    """A request that Triton makes before it calls the model ready: a black image, expressions of padding."""
    sizes = {
        "images": (1, image_size, image_size, 3),
        "expression_ids": (expressions, WARM_UP_WORDS),
        "lengths": (expressions,),
        "image_index": (expressions,),
        "image_sizes": (1, 2),
    }
    lines = [
        f'  inputs {{ key: "{name}" value {{ data_type: TYPE_{TENSORS[name][0]} '
        f"dims: [ {', '.join(map(str, dims))} ] {_filling(name, expressions)} }} }}"
        for name, dims in sizes.items()
    ]
    return "\n".join([f'model_warmup {{\n  name: "{expressions} expressions"', *lines, "}"])


def _filling(name: str, expressions: int) -> str:
    return f'input_data_file: "{LENGTHS.format(expressions)}"' if name == "lengths" else "zero_data: true"


def write_configuration(folder: Path, kind: str, image_size: int) -> None:
    """Write what belongs to the model whose folder this is, whatever its version: configuration and warm-up data."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(render(folder.name, kind, image_size).encode(), folder / CONFIG)
    if kind != "gin":
        for count in WARM_UPS:
            lengths = np.full(count, WARM_UP_WORDS, dtype="<i8")
            write_atomically(lengths.tobytes(), folder / "warmup" / LENGTHS.format(count))


def update_configuration(folder: Path, kind: str, image_size: int) -> None:
    """Write the same after an export, but keep a configuration that somebody edited, and say so.

    In that of `gin` nothing depends on the export: one that is there is kept without a word.
    """
    path = folder / CONFIG
    if not path.exists() or (kind != "gin" and _is_rendered(path, kind)):
        write_configuration(folder, kind, image_size)
    elif kind != "gin":
        kept = f"{path} was edited and is kept; it has to be for images of {image_size} pixels"
        print(kept, file=sys.stderr)


def _is_rendered(path: Path, kind: str) -> bool:
    """Whether a configuration is as `render` gives it for the size that its warm-up names."""
    text = path.read_text(encoding="utf-8", errors="replace")
    size = re.search(r"dims: \[ 1, (\d+), \1, 3 \]", text)
    return size is not None and text == render(path.parent.name, kind, int(size[1]))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m export.configurations", description="Write the committed files.")
    parser.parse_args(argv)
    for name in COMMITTED:
        write_configuration(REPOSITORY / name, name, DEMO_SIZE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What lower precision costs in accuracy: the demo network's exported files on generated scenes.

    python benchmarks/precisions.py [CKPT] [--record FILE]

Each precision that the CPU runs is exported as a user would, int8 calibrated on scenes of its own, and asked about
pictures that neither training nor calibration has seen. Prints a table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from machine import CHECKPOINT, checkpoint_file, describe_machine, record_file, write_record
from rich.console import Console
from rich.table import Table

from train.data.scenes import write_scenes

ROOT = Path(__file__).parent.parent
CALIBRATION, TEST = (64, 11), (500, 12)  # pictures, seed
FORMATS = {  # title: module, arguments
    "ONNX, fp32": ("onnx", []),
    "ONNX, fp16": ("onnx", ["--precision", "fp16"]),
    "ONNX, int8": ("onnx", ["--precision", "int8"]),
    "TorchScript, bf16": ("torchscript", ["--precision", "bf16"]),
}
SHOWN = ("accuracy", "accuracy_drop", "same_anchor", "mean_iou")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="What lower precision costs in accuracy.")
    parser.add_argument(
        "checkpoint", nargs="?", type=checkpoint_file, default=CHECKPOINT, metavar="CKPT", help="(%(default)s)"
    )
    parser.add_argument("--record", type=record_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_scenes(folder / "calibration", *CALIBRATION)
        write_scenes(folder / "test", *TEST)
        reports = {title: export(arguments.checkpoint, folder, *FORMATS[title]) for title in FORMATS}
    table = Table(arguments.checkpoint.name, "accuracy", "less than fp32", "same anchor", "mean IoU of boxes")
    for title, report in reports.items():
        table.add_row(title, *(f"{report[name]:.4f}" for name in SHOWN))
    Console().print(table)
    if arguments.record:
        record = {"checkpoint": arguments.checkpoint.name, "test_pictures": TEST[0], "precisions": reports}
        record |= describe_machine(onnxruntime=onnxruntime.__version__)
        write_record(arguments.record, record)
    return 0


def export(checkpoint: Path, folder: Path, module: str, more: Sequence[str]) -> dict[str, Any]:
    """How the answers of one exported file compare; no limit on accuracy decides what is seen."""
    command = [sys.executable, "-m", f"export.{module}", str(checkpoint), "--out", str(folder / "out"), *more]
    command += ["--test", str(folder / "test" / "scenes.csv"), "--accuracy-drop", "1"]
    if "int8" in more:
        command += ["--calibration", str(folder / "calibration" / "scenes.csv")]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    left_out = {"int8_left_out": report["int8_left_out"]} if "int8" in more else {}
    return report["graphs"]["gin"]["parity"] | left_out


if __name__ == "__main__":
    sys.exit(main())

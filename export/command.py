"""The command line that the exports share."""

import argparse
import dataclasses
import json
from pathlib import Path

from export.build import Request, build, read_checkpoint
from export.configurations import REPOSITORY
from export.formats import Format
from export.graphs import GRAPHS
from export.parity import LIMITS, ParityError
from export.publish import publish, publish_models, staging
from export.questions import Example, read_examples
from model.command import run_command

CALIBRATION = 64  # pictures
MEANINGS = {  # of `Limits`, in short
    "features": "largest difference of features, as a share of the largest value",
    "scores": "largest difference of scores",
    "attention": "largest difference of attention",
    "boxes": "largest difference of boxes in pixels, where the same anchor wins",
    "same_anchor": "smallest share of expressions where it does",
    "mean_iou": "smallest mean IoU of the boxes with the checkpoint's",
    "accuracy_drop": "largest loss of accuracy, with --test",
}


def make_parser(description: str, kind: Format) -> argparse.ArgumentParser:
    """The arguments that all exports have, as far as the format offers them."""
    parser = argparse.ArgumentParser(prog=f"python -m export.{kind.name}", description=description)
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a checkpoint of this project")
    where = parser.add_mutually_exclusive_group(required=not kind.models)
    where.add_argument("--out", type=Path, metavar="DIR", help="write all graphs into this folder")
    if kind.models:
        to = "or into the models of this Triton repository (default: %(default)s)"
        where.add_argument("--repository", type=Path, default=REPOSITORY, metavar="DIR", help=to)
    parser.add_argument("--precision", choices=kind.precisions, default="fp32", help="default: %(default)s")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the input (default: as trained)")
    parser.add_argument("--test", type=Path, metavar="CSV", help="annotated pictures to compare accuracy on too")
    if kind.quantize:
        calibration = "annotated pictures that int8 is calibrated on"
        parser.add_argument("--calibration", type=Path, metavar="CSV", help=calibration)
    folder = "folder of the pictures that a CSV names (default: `images` beside it)"
    parser.add_argument("--images", type=Path, metavar="DIR", help=folder)
    limits = parser.add_argument_group("limits", "what is accepted; the defaults, in brackets, depend on the precision")
    for name, meaning in MEANINGS.items():
        defaults = ", ".join(f"{precision} {getattr(LIMITS[precision], name):g}" for precision in kind.precisions)
        option = f"--{name.replace('_', '-')}"
        limits.add_argument(option, type=float, metavar="X", help=f"{meaning} ({defaults})")
    return parser


def run_export(arguments: argparse.Namespace, kind: Format) -> int:
    """Export, print the report as one line of JSON; returns the exit code."""
    return run_command(f"python -m export.{kind.name}", lambda: _print_report(arguments, kind), ParityError)


def _print_report(arguments: argparse.Namespace, kind: Format) -> None:
    try:
        print(json.dumps(_export(arguments, kind)))
    except ParityError as error:
        raise ParityError(f"{error}; nothing was written") from None


def _export(arguments: argparse.Namespace, kind: Format) -> dict[str, object]:
    calibrated = kind.quantize is not None and arguments.calibration is not None
    if calibrated != (arguments.precision == "int8"):
        raise ValueError("--precision int8 and --calibration CSV go together")
    given = {name: getattr(arguments, name) for name in MEANINGS}
    limits = dataclasses.replace(
        LIMITS[arguments.precision], **{name: value for name, value in given.items() if value is not None}
    )
    checkpoint, sha256 = read_checkpoint(arguments.checkpoint, arguments.size)
    test, calibration = list[Example](), list[Example]()
    if arguments.test is not None:
        test = read_examples(arguments.test, checkpoint.preparation, images=arguments.images)
    if calibrated:
        calibration = read_examples(arguments.calibration, checkpoint.preparation, CALIBRATION, arguments.images)
    calibrating = [example.question for example in calibration]
    request = Request(checkpoint, sha256, arguments.precision, limits, test, calibrating)
    if arguments.out is None:
        return _to_repository(request, kind, arguments.repository)
    with staging(arguments.out) as folder:
        report = build(request, kind, folder)
        publish(folder, arguments.out)
    return report | {"written": [str(arguments.out)]}


def export_to_repository(checkpoint: Path, kind: Format, repository: Path) -> dict[str, object]:
    """Export in fp32 as the command does without options. Raises ParityError, ValueError or OSError."""
    return _to_repository(Request(*read_checkpoint(checkpoint), "fp32", LIMITS["fp32"]), kind, repository)


def _to_repository(request: Request, kind: Format, repository: Path) -> dict[str, object]:
    wanted = [name for name in GRAPHS if any(name in parts for parts in kind.models.values())]
    with staging(repository) as folder:
        report = build(request, kind, folder, wanted)
        places = publish_models(folder, report, kind, repository)
    return report | {"written": [str(place) for place in places]}

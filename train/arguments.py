"""Command-line arguments of a training run to its configuration."""

import re
import sys
import textwrap
from argparse import ArgumentError
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings

from train.config import TrainConfig

COMMAND = "python -m train.run"
DEMO = Path(__file__).parent.parent / "configs" / "demo.yaml"
set_parsing_settings(docstring_parse_attribute_docstrings=True)  # what --help says of each field
MESSAGE = 500  # most characters of one
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
_FIELD = re.compile(r"--(?!config=)[A-Za-z_][\w.]*=")


def build_parser() -> ArgumentParser:
    """Every field of a `TrainConfig` as an option, with its description."""
    parser = ArgumentParser(
        prog=COMMAND,
        usage=f"{COMMAND} [--config FILE] [key=value ...]",
        description="Train a network. Fields are given as key=value, e.g. optim.epochs=3, which is short for "
        "--optim.epochs=3. The defaults below are of fields that --config FILE does not set; without --config those of "
        "configs/demo.yaml come first, and --print_config shows what applies.",
        exit_on_error=False,
        allow_abbrev=False,  # `--conf FILE` would be taken for --config after the demo's settings had been
    )
    parser.add_argument("--config", action="config", help="YAML file; without one, configs/demo.yaml")
    parser.add_class_arguments(TrainConfig, None)
    return parser


def parse_arguments(argv: Sequence[str] | None = None) -> TrainConfig:
    """`[--config FILE] [key=value ...]` to a configuration; bad arguments end the program with exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments = [f"--{argument}" if _OVERRIDE.match(argument) else argument for argument in arguments]
    if not any(argument.startswith("--config") for argument in arguments):
        arguments = ["--config", str(DEMO), *arguments]
    arguments.sort(key=lambda argument: bool(_FIELD.match(argument)))  # the file first: the last one wins
    parser = build_parser()
    try:
        _check_names(arguments, list(parser.get_defaults().keys()))
        parsed = parser.instantiate_classes(parser.parse_args(arguments))
        return TrainConfig(**{name: value for name, value in vars(parsed).items() if name != "config"})
    except (ArgumentError, ValueError, TypeError) as error:
        _refuse(textwrap.shorten(str(error), MESSAGE))  # a file of another kind is quoted whole


def _check_names(arguments: Sequence[str], fields: Sequence[str]) -> None:
    """Raises ValueError for a field that is not there, with those that may be meant."""
    for argument in filter(_FIELD.match, arguments):
        name = argument.removeprefix("--").partition("=")[0]
        if any(f"{name}.".startswith(f"{field}.") or field.startswith(f"{name}.") for field in fields):
            continue
        last = name.rpartition(".")[2]
        close = [field for field in fields if field.endswith(f".{last}")]
        close = close or [field for field in fields if last in field.rpartition(".")[2]]
        close = close or get_close_matches(name, fields, n=1)
        raise ValueError(f"there is no field {name}" + (f"; is it {' or '.join(close)}?" if close else ""))


def _refuse(reason: str) -> NoReturn:
    print(f"{COMMAND}: {reason}", file=sys.stderr)
    sys.exit(2)

"""The command line that the exports share."""

import dataclasses
import re

import pytest

from export.command import make_parser
from export.formats import Format
from export.parity import Limits
from tests.export.conftest import MODULES

FORMATS = [module.FORMAT for module in MODULES.values()]


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_every_limit_is_explained(kind: Format) -> None:
    """The help says of each which way it goes, and what holds in each precision unless it is given."""
    text = " ".join(make_parser("", kind).format_help().split())
    for field in dataclasses.fields(Limits):
        option = f"--{field.name.replace('_', '-')} X"
        described = re.search(rf"{option} (largest|smallest) [^()]+ \(([^()]+)\)", text)
        assert described, option
        assert [default.split()[0] for default in described[2].split(", ")] == list(kind.precisions)

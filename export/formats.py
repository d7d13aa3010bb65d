"""What an export needs to know of a file format."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from export.graphs import Graph
from export.parity import Limits, Runner
from export.questions import Question

VOCABULARY = "vocabulary.json"
PRESENCE = "presence.json"  # of a calibrated checkpoint


@dataclass(frozen=True)
class Format:
    """One kind of exported file.

    write: graph, example inputs by name, path, and facts to keep inside the file. open: the file's path, its inputs
    and its outputs, to a way to ask it on the CPU. versions: of the packages that matter. models: of a Triton
    repository, each with the graphs and files that it serves, as far as there are any, and their names in it. quantize:
    make the files in a folder int8 after asking them questions; returns facts for the manifest.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    write: Callable[[Graph, Mapping[str, Tensor], Path, Mapping[str, str]], None]
    open: Callable[[Path, Sequence[str], Sequence[str]], Runner]
    versions: Callable[[], dict[str, str]]
    models: Mapping[str, Mapping[str, str]]
    quantize: Callable[[Path, Sequence[Question], Limits], dict[str, Any]] | None = None


def first_line(error: Exception) -> str:
    """What a runtime's error says first; where it says nothing, what kind of error it is."""
    return (str(error).strip() or repr(error)).splitlines()[0]

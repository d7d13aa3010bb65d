"""The fenced blocks of a page of documentation, to be executed as they are written there."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """language: what stands behind the fence, "" for printed text. text: the lines between the fences."""

    language: str
    text: str


class Command(NamedTuple):
    """words: without the prompt and without a comment. shown: what the page says it prints, "" for nothing."""

    words: str
    shown: str


def blocks(page: str, start: str = "", end: str = "") -> list[Block]:
    """The blocks of a page, given by its path from the project's folder, between two texts that stand in it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    first = text.index(start)
    last = text.index(end, first) if end else len(text)
    return [Block(*found) for found in _FENCED.findall(text[first:last])]


def commands(block: Block) -> list[Command]:
    """The lines of a console block that begin with `$ `, each with those below it."""
    _, *each = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    pairs = (one.partition("\n") for one in each)
    return [Command(re.sub(r"\s+# .*", "", words), shown) for words, _, shown in pairs]

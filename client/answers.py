"""What a server answers: a `Grounding` for each expression, and `Answers`, the list of them for one picture."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from client.pictures import Array, ImageLike

_SHOWN = 800  # pixels of the longer side: a notebook keeps what it shows


Box: TypeAlias = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright image (EXIF orientation applied), clipped to it."""


@dataclass(frozen=True)
class Candidate:
    """A box that might be meant too."""

    box: Box
    score: float


@dataclass(frozen=True)
class Grounding:
    """The answer to one expression; a notebook shows it as the picture with the box."""

    expression: str
    box: Box
    score: float
    """How sure the network is that this box is the best of all, 0..1. Scores of different networks do not compare."""
    presence: float | None = None
    """How probable it is that the thing is in the picture at all, 0..1; None if the network was not calibrated."""
    found: bool = True
    """False where that is below the server's threshold: read it as "not there"."""
    unknown: tuple[str, ...] = ()
    """Words of the expression that the network has not learnt, in lower case: it answered as if there were none."""
    others: tuple[Candidate, ...] = ()
    """The next best boxes, best first, none of which overlaps another or `box` by much; empty unless asked for."""
    attention: Array | None = field(default=None, compare=False, repr=False)
    """(h, w) float32: where the network looked, a grid over the image as the network saw it; None unless asked for."""
    image: ImageLike | None = field(default=None, compare=False, repr=False)
    """What was asked about, as it was given; of a pipe the bytes that came."""

    def _repr_png_(self) -> bytes | None:
        return _shown([self])


class Answers(list[Grounding]):
    """The answers about one picture in the order of the expressions; a notebook shows all of them in the picture."""

    def __init__(self, groundings: Iterable[Grounding], seconds: float) -> None:
        super().__init__(groundings)
        self.seconds = seconds
        """From sending to the answer, pauses between tries included."""

    def _repr_png_(self) -> bytes | None:
        return _shown(self)


def _shown(groundings: Sequence[Grounding]) -> bytes | None:
    """A PNG file with the answers drawn, and their attention if there is any; None without a picture."""
    from client import draw  # needed to show only

    if not groundings or groundings[0].image is None:
        return None
    picture = draw.upright(groundings[0].image)
    shrunk = min(_SHOWN / max(picture.size), 1)
    if shrunk < 1:
        picture = picture.resize((max(round(picture.width * shrunk), 1), max(round(picture.height * shrunk), 1)))
    smaller = [
        replace(
            g,
            box=_scaled(g.box, shrunk),
            others=tuple(replace(other, box=_scaled(other.box, shrunk)) for other in g.others),
        )
        for g in groundings
    ]
    buffer = io.BytesIO()
    draw.draw(picture, smaller).save(buffer, "PNG")
    return buffer.getvalue()


def _scaled(box: Box, factor: float) -> Box:
    x1, y1, x2, y2 = box
    return x1 * factor, y1 * factor, x2 * factor, y2 * factor

"""The world of generated scenes: coloured shapes laid out so that many of them share colour, shape or size."""

from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
COLOURS = {
    "red": (214, 36, 40),
    "orange": (246, 136, 24),
    "yellow": (250, 226, 52),
    "green": (36, 164, 72),
    "blue": (38, 84, 214),
    "purple": (142, 48, 172),
    "white": (244, 244, 244),
    "black": (24, 24, 24),
}
SIZES = {"small": (0.13, 0.17), "large": (0.26, 0.34)}  # height as a share of the picture's short side
SIDES = (240, 384)  # shortest and longest side of a picture in pixels
COUNTS = (4, 8)  # fewest and most objects
EXPRESSIONS = (2, 12)  # fewest and most about one picture, for they are about two things or more and differ in meaning
GAP = 0.03  # between boxes and to the border, as a share of the short side


@dataclass(frozen=True)
class Thing:
    """One object. box: x1, y1, x2, y2 in whole pixels, the last two one past the drawn ones."""

    shape: str
    colour: str
    size: str
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def extent(self) -> float:
        """Geometric mean of width and height, in pixels."""
        x1, y1, x2, y2 = self.box
        return float(np.sqrt((x2 - x1) * (y2 - y1)))


@dataclass(frozen=True)
class Scene:
    """Things on a picture of width x height pixels, none touching another."""

    width: int
    height: int
    things: tuple[Thing, ...]

    @property
    def short_side(self) -> int:
        """The unit of all margins."""
        return min(self.width, self.height)


def lay_out(random: np.random.Generator) -> Scene:
    """A random scene. Few colours and shapes share it, so that one word seldom tells things apart."""
    width, height = (int(side) for side in random.integers(SIDES[0], SIDES[1], size=2, endpoint=True))
    shapes = random.permutation(SHAPES)[: random.integers(2, 4)]
    colours = random.permutation(list(COLOURS))[: random.integers(2, 5)]
    things: list[Thing] = []
    for _ in range(random.integers(COUNTS[0], COUNTS[1], endpoint=True)):
        shape, colour = str(random.choice(shapes)), str(random.choice(colours))
        size = "small" if random.random() < 0.6 else "large"
        box = _free_box(random, size, width, height, things)
        if box is not None:
            things.append(Thing(shape, colour, size, box))
    return Scene(width, height, tuple(things))


def _free_box(
    random: np.random.Generator, size: str, width: int, height: int, things: list[Thing]
) -> tuple[int, int, int, int] | None:
    """A place that touches no other thing, or None if none is found soon."""
    short = min(width, height)
    gap = round(GAP * short)
    h = round(random.uniform(*SIZES[size]) * short)
    w = round(h * random.uniform(0.9, 1.1))
    for _ in range(40):
        x = int(random.integers(gap, width - gap - w, endpoint=True))
        y = int(random.integers(gap, height - gap - h, endpoint=True))
        box = (x, y, x + w, y + h)
        if not any(_near(box, thing.box, gap) for thing in things):
            return box
    return None


def _near(a: tuple[int, int, int, int], b: tuple[int, int, int, int], gap: int) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap

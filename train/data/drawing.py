"""Generated scenes as pictures."""

import numpy as np
from PIL import Image, ImageDraw

from train.data.world import COLOURS, Scene, Thing

FINE = 2  # drawn so many times larger, then reduced, which smooths edges
INK = (30, 30, 30)


def draw_scene(scene: Scene, random: np.random.Generator) -> Image.Image:
    """An RGB picture of scene.width x scene.height pixels: things on a random muted background."""
    background = draw_background(scene.width, scene.height, random)
    picture = background.resize((scene.width * FINE, scene.height * FINE), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(picture)
    for thing in scene.things:
        tint = np.array(COLOURS[thing.colour]) + random.integers(-10, 11, size=3)
        red, green, blue = (int(channel) for channel in tint.clip(0, 255))
        draw_thing(canvas, thing, (red, green, blue))
    return picture.reduce(FINE)


def draw_thing(canvas: ImageDraw.ImageDraw, thing: Thing, fill: tuple[int, int, int]) -> None:
    """Fill the thing's box with its shape, thinly outlined, on a canvas FINE times the scene."""
    x1, y1, x2, y2 = (side * FINE for side in thing.box)
    if thing.shape == "circle":
        canvas.ellipse((x1, y1, x2 - 1, y2 - 1), fill=fill, outline=INK, width=FINE)
        return
    corners = OUTLINES[thing.shape] * (x2 - x1 - 1, y2 - y1 - 1) + (x1, y1)
    points = [(float(x), float(y)) for x, y in corners]
    canvas.polygon(points, fill=fill)
    canvas.line([*points, points[0]], fill=INK, width=FINE)


def draw_background(width: int, height: int, random: np.random.Generator) -> Image.Image:
    """Plain, gradient, stripes, checks or clouds between two close muted colours."""
    base = random.uniform(120, 190) + random.uniform(-18, 18, size=3)
    other = base + random.uniform(-28, 28) + random.uniform(-6, 6, size=3)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    kind = random.integers(5)
    if kind == 0:
        share = np.zeros((height, width), dtype=np.float32)
    elif kind == 1:
        angle = random.uniform(0, 2 * np.pi)
        share = (np.cos(angle) * xs / width + np.sin(angle) * ys / height) / 2 + 0.5
    elif kind == 2:
        angle, period = random.uniform(0, np.pi), random.uniform(12, 50)
        share = ((xs * np.cos(angle) + ys * np.sin(angle)) // period % 2).astype(np.float32)
    elif kind == 3:
        period = random.uniform(14, 50)
        share = ((xs // period + ys // period) % 2).astype(np.float32)
    else:
        coarse = Image.fromarray(random.integers(0, 256, size=(6, 6), dtype=np.uint8))
        share = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    colours = base + share[..., None] * (other - base)
    return Image.fromarray(colours.clip(0, 255).astype(np.uint8))


def _star() -> np.ndarray:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
    return np.stack((radii * np.cos(angles), radii * np.sin(angles)), axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack((x, -y), axis=1)


def _fill_unit_box(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / (high - low)


_A, _B = 0.32, 0.68  # where a cross's arms begin and end
OUTLINES = {
    "square": np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float),
    "triangle": np.array([(0.5, 0), (1, 1), (0, 1)]),
    "cross": np.array(
        [(_A, 0), (_B, 0), (_B, _A), (1, _A), (1, _B), (_B, _B), (_B, 1), (_A, 1), (_A, _B), (0, _B), (0, _A), (_A, _A)]
    ),
    "star": _fill_unit_box(_star()),
    "heart": _fill_unit_box(_heart()),
}

"""Augmentation: other pictures of the same thing, with boxes and expressions that still hold."""

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)  # around a picture that is zoomed out


@dataclass(frozen=True)
class AugmentConfig:
    """What may be changed in training pictures; nothing by default, as in the authors' recipe.

    Zooming in and cropping keep every box whole, but may cut away other things that an expression counts.
    """

    flip: float = 0.0
    """probability of a mirrored picture, with left and right exchanged in its expressions"""
    scale: float = 0.0
    """0.25 zooms by up to a quarter in or out"""
    crop: float = 0.0
    """largest share of width and of height that is cut away"""
    colour: float = 0.0
    """0.25 changes brightness, contrast and saturation by up to a quarter each"""

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"augment.flip is {self.flip}; it must be a probability, 0 to 1")
        for name in ("scale", "crop", "colour"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}; it must be 0 or more and below 1")


def augment(
    picture: Image.Image, boxes: np.ndarray, expressions: list[str], config: AugmentConfig, random: np.random.Generator
) -> tuple[Image.Image, np.ndarray, list[str]]:
    """Change a picture (RGB), its boxes float32 (N, 4) xyxy in pixels and the expressions about it."""
    if config.crop:
        kept = 1 - random.uniform(0, config.crop, 2)
        picture, boxes = _cut(picture, boxes, kept * picture.size, random)
    if config.scale:
        zoom = (1 + config.scale) ** random.uniform(-1, 1)
        size = np.array(picture.size) / zoom
        picture, boxes = (_cut if zoom > 1 else _surround)(picture, boxes, size, random)
    if random.random() < config.flip:
        picture = ImageOps.mirror(picture)
        boxes = np.stack((picture.width - boxes[:, 2], boxes[:, 1], picture.width - boxes[:, 0], boxes[:, 3]), axis=1)
        expressions = [swap_sides(expression) for expression in expressions]
    if config.colour:
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhancer(picture).enhance(1 + config.colour * random.uniform(-1, 1))
    return picture, boxes, expressions


def _cut(
    picture: Image.Image, boxes: np.ndarray, size: np.ndarray, random: np.random.Generator
) -> tuple[Image.Image, np.ndarray]:
    """A window of about `size` (width, height), somewhere, but larger if the boxes need it."""
    first = np.floor(boxes[:, :2].min(axis=0)).clip(0, picture.size)
    last = np.ceil(boxes[:, 2:].max(axis=0)).clip(0, picture.size)
    size = np.maximum(np.round(size), last - first)
    low = np.maximum(last - size, 0)
    high = np.minimum(first, picture.size - size)
    corner = np.round(low + random.random(2) * np.maximum(high - low, 0)).astype(int)
    (left, top), (right, bottom) = corner, corner + size.astype(int)
    return picture.crop((left, top, right, bottom)), (boxes - np.tile(corner, 2)).astype(np.float32)


def _surround(
    picture: Image.Image, boxes: np.ndarray, size: np.ndarray, random: np.random.Generator
) -> tuple[Image.Image, np.ndarray]:
    """The picture somewhere on a grey one of about `size` (width, height)."""
    width, height = np.maximum(np.round(size), picture.size).astype(int)
    left, top = (random.random(2) * (width - picture.width, height - picture.height)).astype(int)
    canvas = Image.new("RGB", (width, height), GREY)
    canvas.paste(picture, (left, top))
    return canvas, (boxes + np.array([left, top, left, top])).astype(np.float32)


# Whole words only, so that "bright", "upright" and "leftovers" stay; short forms are how ReferIt's players type.
_LEFT = "left lefts leftmost lefthand leftward leftwards leftest lefty lft lt l".split()
_RIGHT = "right rights rightmost righthand rightward rightwards rightest righty rght rt r".split()
_OTHER = dict(zip(_LEFT + _RIGHT, _RIGHT + _LEFT, strict=True))
_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")
# "right behind him" says how close, unless something before it makes it a place: "on the right behind him"
_CLOSENESS = re.compile(
    r"(?<!the )(?<!on )(?<!to )(?<!at )(?<!far )(?<!top )(?<!bottom )(?<!upper )(?<!lower )(?<!middle )"
    r"\bright(?= (?:above|behind|below|beneath|beside|here|in front|next to|there|under|underneath)\b)",
    re.IGNORECASE,
)


def swap_sides(expression: str) -> str:
    """The expression about the mirrored picture: left and right exchanged, in the case they were written in."""
    closeness = {match.start() for match in _CLOSENESS.finditer(expression)}

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        other = _OTHER.get(word.lower())
        if other is None or match.start() in closeness:
            return word
        return other.upper() if word.isupper() and len(word) > 1 else other.title() if word[0].isupper() else other

    return _WORD.sub(swap, expression)

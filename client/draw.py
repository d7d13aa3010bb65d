"""Answers drawn into their picture: boxes and labels that stay legible from a 200 px picture to a 4K frame."""

import io
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from client.answers import Grounding
from client.pictures import Array, ImageLike, file_bytes, turned

# Okabe and Ito's palette, which colour-blind people tell apart too; strongest on photographs first, black left out.
# After it what is farthest from these and from each other, for them too.
PALETTE = (
    *("#D55E00", "#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#E69F00", "#0072B2"),
    *("#0000FF", "#00FF88", "#663300", "#00FFFF", "#6666FF"),
)
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

_DARKENED, _TINTED = 0.6, 0.35  # share of black where the network did not look, of the box's colour where it did
_DARK = ("#0072B2", "#0000FF", "#663300")  # colours of the palette on which white letters are easier to read than black
_MAX_LINES = 2
_MAX_LETTERS = 300  # of an expression, before measuring: nothing longer fits on two lines
_QUOTES = "\u2018\u2019\u201c\u201d"  # curly ones, single and double
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"

_Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels, x2 and y2 outside


def draw(image: ImageLike, groundings: Sequence[Grounding], note: str = "") -> Image.Image:
    """A new RGB picture, upright and of the upright image's size, with each box and its expression and score.

    Other boxes that might be meant have thinner lines of the same colour, and no label.
    Where answers carry attention, the picture is darkened but for where the network looked, in the box's colour.
    A `note` about the whole picture stands in its lower left corner.
    """
    picture = _lit(upright(image), groundings)
    pen = ImageDraw.Draw(picture)
    short = min(picture.size)
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=min(max(short / 32, 12), 64)))
    width = min(max(round(short / 300), 2), 16)
    for n, grounding in enumerate(groundings):
        for other in grounding.others:
            _draw_box(pen, other.box, PALETTE[n % len(PALETTE)], width // 2, picture.size)
    for n, grounding in enumerate(groundings):
        _draw_box(pen, grounding.box, PALETTE[n % len(PALETTE)], width, picture.size)
    boxes = [_around(grounding.box, width, picture.size) for grounding in groundings]
    placed: list[_Rectangle] = []
    if note:
        placed.append(_draw_note(pen, note, font, picture.size))
    for n, grounding in enumerate(groundings):
        label = _label(grounding, font, picture.size)
        if label is None:
            continue
        lines, size = label
        place = _place(size, boxes[n], width, picture.size, placed, boxes)
        placed.append(place)
        _draw_label(pen, lines, place, PALETTE[n % len(PALETTE)], font)
    return picture


def _lit(picture: Image.Image, groundings: Sequence[Grounding]) -> Image.Image:
    """The picture as attention shows it; the picture itself if there is none."""
    if all(grounding.attention is None for grounding in groundings):
        return picture
    shown = Image.blend(picture, Image.new("RGB", picture.size), _DARKENED)
    for n, grounding in enumerate(groundings):
        if grounding.attention is not None:
            # The network saw the picture stretched to a square, so its grid covers the whole of any shape.
            mask = _grey(grounding.attention).resize(picture.size, Image.Resampling.BICUBIC)
            tint = Image.new("RGB", picture.size, PALETTE[n % len(PALETTE)])
            shown.paste(Image.blend(picture, tint, _TINTED), mask=mask)
    return shown


def _grey(attention: Array) -> Image.Image:
    """A map (h, w) as 8-bit grey, its largest value white."""
    positive = np.clip(np.nan_to_num(attention.astype(np.float32), posinf=0.0), 0, None)
    return Image.fromarray(np.rint(positive * (255 / max(float(positive.max()), 1e-6))).astype(np.uint8))


def upright(image: ImageLike) -> Image.Image:
    """A copy of `image` in RGB, as a person and the network see it.

    Orientation applied, 16-bit grey scaled to 8 bits, transparency over white.
    """
    opened = image if isinstance(image, Image.Image) else Image.open(io.BytesIO(file_bytes(image)))
    picture = turned(opened)
    if picture.mode.startswith("I"):  # Pillow's own conversion would cut off everything above 255
        picture = Image.fromarray(np.clip(np.rint(np.asarray(picture) / 257), 0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    return picture.convert("RGB")


def save(picture: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write `picture` in the format that the name of `path` ends in (FORMATS): the whole file appears, or nothing.

    Raises OSError if the file cannot be written and ValueError if its name ends otherwise or the format
    cannot hold the picture.
    """
    target = Path(path)
    kind = FORMATS.get(target.suffix.lower())
    if kind is None:
        raise ValueError(f"expected a name ending in {', '.join(FORMATS)}, got {str(target)!r}")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            picture.save(file, kind, quality=92)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _draw_box(pen: ImageDraw.ImageDraw, box: tuple[float, ...], colour: str, width: int, size: tuple[int, int]) -> None:
    """A line around the box, outside of it so that a small thing is not covered, between two thin black ones."""
    edge = max(width // 4, 1)
    for outset, thickness, fill in ((width + edge, width + 2 * edge, "black"), (width, width, colour)):
        x1, y1, x2, y2 = _around(box, outset, size)
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=fill, width=thickness)


def _around(box: tuple[float, ...], outset: int, size: tuple[int, int]) -> _Rectangle:
    """The whole pixels that the box touches and `outset` more on each side, cut to the picture; at least one pixel."""
    (w, h), (x1, y1, x2, y2) = size, box
    left, top = (int(np.clip(np.floor(v) - outset, 0, end - 1)) for v, end in ((x1, w), (y1, h)))
    right, bottom = (int(np.clip(np.ceil(v) + outset, 1, end)) for v, end in ((x2, w), (y2, h)))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _label(
    grounding: Grounding, font: ImageFont.FreeTypeFont, size: tuple[int, int]
) -> tuple[list[str], tuple[int, int]] | None:
    """Lines of the label and its (width, height), padding included; None where the picture has no room for any."""
    pad, line = _padding(font), sum(font.getmetrics())
    widest = min(size[0], max(int(size[0] * 0.6), int(font.size * 16))) - 2 * pad
    rows = min((size[1] - 2 * pad) // line, _MAX_LINES)
    score = f"{grounding.score:.2f}" if grounding.found else f"{grounding.score:.2f} not there?"
    lines = _wrap(grounding.expression, score, font, widest, rows)
    if not lines:
        return None
    longest = max(int(np.ceil(font.getlength(text))) for text in lines)
    return lines, (longest + 2 * pad, line * len(lines) + 2 * pad)


def _wrap(expression: str, score: str, font: ImageFont.FreeTypeFont, width: float, rows: int) -> list[str]:
    """`expression` and `score` on at most `rows` lines no wider than `width`: shortened words, never the score."""
    if rows < 1 or font.getlength(score) > width:
        return []
    words = [piece for word in _drawable(expression).split() for piece in _pieces(word, font, width)]
    lines = [""]
    for n, word in enumerate(words):
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
        elif len(lines) < rows:
            lines.append(word)
        else:
            return [*lines[:-1], _shortened(" ".join([lines[-1], *words[n:]]), score, font, width)]
    if font.getlength(f"{lines[-1]}  {score}") <= width:
        return [*lines[:-1], f"{lines[-1]}  {score}".strip()]
    if len(lines) < rows:
        return [*lines, score]
    return [*lines[:-1], _shortened(lines[-1], score, font, width)]


def _drawable(expression: str) -> str:
    """`expression` in the letters that Pillow's own font has: without accents, and a ? for any other letter."""
    plain = unicodedata.normalize("NFKD", expression[:_MAX_LETTERS])
    letters = (" " if not c.isprintable() else c if c.isascii() or c in _QUOTES else "?" for c in plain)
    return "".join(letter for letter, c in zip(letters, plain, strict=True) if not unicodedata.combining(c))


def _pieces(word: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """`word`, or the pieces it must be broken into to be no wider than `width`."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _shortened(text: str, score: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """As much of `text` as fits with an ellipsis and the score; the bare score if nothing does."""
    while text and font.getlength(f"{text}{_ELLIPSIS}  {score}") > width:
        text = text[:-1].rstrip()
    return f"{text}{_ELLIPSIS}  {score}" if text else score


def _place(
    label: tuple[int, int],
    box: _Rectangle,
    width: int,
    size: tuple[int, int],
    placed: Sequence[_Rectangle],
    boxes: Sequence[_Rectangle],
) -> _Rectangle:
    """Where the label goes: where it hides least of the labels that are `placed`, then of what is in `boxes`; of such
    places above its box, else below, else inside."""
    (w, h), (x1, y1, x2, y2) = label, box
    spots = [(x, y) for y in (y1 - h, y2, y1 + width, y2 - h - width) for x in (x1, x2 - w)]
    inside = [(min(max(x, 0), size[0] - w), y) for x, y in spots if 0 <= y <= size[1] - h]
    inside = inside or [(min(max(x, 0), size[0] - w), min(max(y, 0), size[1] - h)) for x, y in spots[:1]]
    candidates = [(x, y, x + w, y + h) for x, y in inside]
    return min(candidates, key=lambda spot: (_covered(spot, placed), _covered(spot, boxes)))


def _covered(spot: _Rectangle, others: Iterable[_Rectangle]) -> int:
    """Pixels of each of the others that `spot` covers, added up."""
    return sum(_overlap(spot, other) for other in others)


def _overlap(a: _Rectangle, b: _Rectangle) -> int:
    """Pixels that both rectangles cover."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _draw_label(
    pen: ImageDraw.ImageDraw, lines: list[str], place: _Rectangle, colour: str, font: ImageFont.FreeTypeFont
) -> None:
    pad, line = _padding(font), sum(font.getmetrics())
    x1, y1, x2, y2 = place
    pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour, outline="black")
    ink = "white" if colour in _DARK else "black"
    for n, text in enumerate(lines):
        pen.text((x1 + pad, y1 + pad + n * line), text, fill=ink, font=font)


def _draw_note(pen: ImageDraw.ImageDraw, note: str, font: ImageFont.FreeTypeFont, size: tuple[int, int]) -> _Rectangle:
    pad, line = _padding(font), sum(font.getmetrics())
    place = (0, size[1] - line - 2 * pad, int(np.ceil(font.getlength(note))) + 2 * pad, size[1])
    _draw_label(pen, [note], place, "white", font)
    return place


def _padding(font: ImageFont.FreeTypeFont) -> int:
    return max(round(font.size / 4), 2)

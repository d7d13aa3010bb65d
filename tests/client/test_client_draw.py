"""Drawing: labels stay inside, boxes are seen, and pictures are upright."""

import io
import itertools
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageFont

from client import Candidate, Grounding, draw

Size: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[float, ...]
Labels: TypeAlias = list[tuple[tuple[int, int, int, int], list[str]]]

LONG = "the second tall man from the left who wears a dark blue raincoat and holds a yellow umbrella over the small dog"
SIZES = [(200, 150), (640, 480), (3840, 2160), (120, 900)]
CORNERS = [(0, 0, 0.2, 0.2), (0.8, 0, 1, 0.2), (0, 0.8, 0.2, 1), (0.8, 0.8, 1, 1), (0, 0, 1, 1), (0.5, 0.5, 0.5, 0.5)]


def grey(size: Size) -> Image.Image:
    return Image.new("RGB", size, (128, 128, 128))


def scaled(box: Box, size: Size) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> Labels:
    """Rectangle and lines of every label, as they are drawn."""
    seen: Labels = []
    original = draw._draw_label

    def spy(pen: object, lines: list[str], place: tuple[int, int, int, int], *rest: object) -> None:
        seen.append((place, lines))
        original(pen, lines, place, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(draw, "_draw_label", spy)
    return seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", CORNERS)
@pytest.mark.parametrize("expression", ["ball", LONG, "Donaudampfschifffahrtsgesellschaft" * 4, ""])
def test_labels_stay_inside_and_keep_the_score(size: Size, box: Box, expression: str, labels: Labels) -> None:
    picture = draw.draw(grey(size), [Grounding(expression, scaled(box, size), 0.87)])
    ((x1, y1, x2, y2), lines) = labels[0]
    assert 0 <= x1 < x2 <= size[0]
    assert 0 <= y1 < y2 <= size[1]
    assert lines[-1].endswith("0.87")
    assert picture.size == size
    # Letters end inside the label: its own padding, left and right, stays of one colour below its outline.
    label = np.asarray(picture)[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
    assert (label[:, 0] == label[0, 0]).all()
    assert (label[:, -1] == label[0, 0]).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", CORNERS)
def test_the_box_is_seen_in_its_colour(size: Size, box: Box) -> None:
    picture = np.asarray(draw.draw(grey(size), [Grounding("", scaled(box, size), 0.5)])).astype(int)
    colour = [int(draw.PALETTE[0][n : n + 2], 16) for n in (1, 3, 5)]
    x1, y1, _, y2 = scaled(box, size)
    hits = (picture == colour).all(axis=2)
    reach = max(2, round(min(size) / 300)) + 1
    near = hits[:, max(int(x1) - reach, 0) : int(x1) + reach].any(axis=1)
    assert near[int(y1) : int(y2)].mean() > 0.5 if y2 > y1 else near.any()


def test_labels_of_neighbours_do_not_cover_each_other(labels: Labels) -> None:
    boxes = [(300, 240, 340, 280), (300, 240, 340, 280), (302, 242, 338, 282)]
    draw.draw(grey((640, 480)), [Grounding("cup", box, 0.5) for box in boxes])
    for (a, _), (b, _) in itertools.combinations(labels, 2):
        assert draw._overlap(a, b) == 0


def test_labels_cover_no_neighbour_if_there_is_room_elsewhere(labels: Labels) -> None:
    lower, above = (300, 240, 340, 280), (300, 200, 340, 232)
    draw.draw(grey((640, 480)), [Grounding("cup", lower, 0.5), Grounding("ball", above, 0.5)])
    for place, _ in labels:
        assert draw._overlap(place, lower) == draw._overlap(place, above) == 0


def test_others_that_might_be_meant_have_thinner_boxes_without_a_label(labels: Labels) -> None:
    best, other = (50, 240, 150, 340), (400, 240, 500, 340)
    drawn = np.asarray(draw.draw(grey((640, 480)), [Grounding("cup", best, 0.5, others=(Candidate(other, 0.1),))]))
    assert len(labels) == 1
    row = (drawn[290] == ImageColor.getrgb(draw.PALETTE[0])).all(axis=1)
    assert 0 < row[350:550].sum() < row[:200].sum()


def test_a_dozen_colours_are_told_apart() -> None:
    colours = [np.array(ImageColor.getrgb(colour)) for colour in draw.PALETTE]
    assert len(colours) == 12
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)) > 60


def test_what_is_small_is_not_covered_by_its_box() -> None:
    picture = grey((3840, 2160))
    picture.paste((255, 0, 0), (1000, 1000, 1008, 1008))
    drawn = np.asarray(draw.draw(picture, [Grounding("bolt", (1000, 1000, 1008, 1008), 0.5)]))
    assert (drawn[1002:1006, 1002:1006] == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 4), (600, 9), (9, 600), (30, 30)])
def test_pictures_without_room_for_a_label_are_drawn(size: Size) -> None:
    for box in [(0, 0, *size), (-50, -50, 2 * size[0], 2 * size[1]), (size[0] - 1, size[1] - 1, *size)]:
        assert draw.draw(grey(size), [Grounding("ball", box, 0.5)]).size == size


def test_lines_are_no_wider_than_told_and_shortened_with_an_ellipsis() -> None:
    font = ImageFont.load_default(size=15)
    assert isinstance(font, ImageFont.FreeTypeFont)
    for width in (40, 60, 100, 300, 2000):
        lines = draw._wrap(LONG, "0.50", font, width, 2)
        assert 1 <= len(lines) <= 2
        assert all(font.getlength(line) <= width for line in lines)
        whole = " ".join(lines).replace("  ", " ") == f"{LONG} 0.50"
        assert whole or "\N{HORIZONTAL ELLIPSIS}" in lines[-1] or lines[-1] == "0.50"
    assert draw._wrap(LONG, "0.50", font, 2000, 2) == [f"{LONG}  0.50"]
    assert draw._wrap(LONG, "0.50", font, 10, 2) == []


def test_letters_the_font_lacks_are_replaced() -> None:
    assert draw._drawable("Kapit\u00e4n\u2019s \x1b[0m\0 \u5de6") == "Kapitan\u2019s  [0m  ?"


def test_the_given_picture_is_left_alone_and_orientation_is_applied(sideways: bytes, pixels: np.ndarray) -> None:
    kept, picture = pixels.copy(), Image.fromarray(pixels)
    for given in (pixels, picture):
        draw.draw(given, [Grounding("a", (0, 0, 9, 9), 0.5)])
        assert np.array_equal(np.asarray(given), kept)
    with Image.open(io.BytesIO(sideways)) as opened:
        assert draw.draw(opened, []).size == draw.draw(sideways, []).size == (40, 60)
        assert np.array_equal(np.asarray(draw.upright(sideways)), np.rot90(np.asarray(opened), -1))


def test_sixteen_bit_grey_is_scaled_not_cut() -> None:
    deep = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    expected = np.rint(np.arange(65536).reshape(256, 256) / 257)
    assert np.array_equal(np.asarray(draw.upright(deep))[:, :, 0], expected)


def test_transparency_is_white() -> None:
    clear = Image.new("RGBA", (30, 20), (255, 0, 0, 0))
    assert (np.asarray(draw.upright(clear)) == 255).all()


def test_saving_is_all_or_nothing(tmp_path: Path) -> None:
    draw.save(grey((30, 20)), tmp_path / "a.png")
    with pytest.raises((OSError, ValueError)):
        draw.save(grey((70000, 1)), tmp_path / "a.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("size", SIZES)
def test_no_label_covers_the_note(size: Size, labels: Labels) -> None:
    low = scaled((0, 0.3, 0.2, 0.9), size)  # the label would best go below this box, where the note is
    draw.draw(
        grey(size), [Grounding("ball", scaled((0, 0, 1, 0.9), size), 0.5), Grounding("cup", low, 0.5)], "9.5 answers/s"
    )
    (x1, y1, x2, y2), lines = labels[0]
    assert lines == ["9.5 answers/s"]
    assert (x1, y2) == (0, size[1])
    for (left, top, right, bottom), _ in labels[1:]:
        assert left >= x2 or right <= x1 or top >= y2 or bottom <= y1

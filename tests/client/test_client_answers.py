"""Answers in a notebook: the picture with the boxes, no larger than it is shown; nothing without a picture."""

import io

import numpy as np
import pytest
from fake_kserve import FakeServer, box_of
from PIL import Image, ImageColor

from client import Answers, Candidate, Client, Grounding, draw

GREY = (128, 128, 128)


def shown(answer: Grounding | Answers) -> Image.Image:
    """What a notebook shows."""
    data = answer._repr_png_()
    assert data is not None
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    return picture


def extent(picture: Image.Image, colour: str) -> list[int]:
    """x1, y1, x2, y2 around all pixels of `colour`."""
    rows, columns = np.nonzero((np.asarray(picture) == ImageColor.getrgb(colour)).all(axis=2))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_that_might_be_meant_too_shrink_with_the_picture() -> None:
    other = Candidate((1000, 1000, 1200, 1200), 0.1)
    answer = Grounding("ball", (0, 0, 2, 2), 0.5, others=(other,), image=Image.new("RGB", (1600, 1600), GREY))
    assert max(extent(shown(answer), draw.PALETTE[0])) in range(600, 605)


def test_an_answer_is_its_picture_with_the_box(server: FakeServer) -> None:
    with Client(server.url) as client:
        answers = client.ground(Image.new("RGB", (300, 200), GREY), ["ball", "cup"])
    one, both = shown(answers[1]), shown(answers)
    assert one.size == both.size == (300, 200)
    x1, y1, x2, y2 = box_of(1)
    for picture, colour in ((one, draw.PALETTE[0]), (both, draw.PALETTE[1])):
        left, top, right, bottom = extent(picture, colour)
        assert left <= x1 <= x2 <= right
        assert top <= y1 <= y2 <= bottom
    assert ImageColor.getrgb(draw.PALETTE[1]) not in {colour for _, colour in one.getcolors(2**16)}


@pytest.mark.parametrize(("size", "smaller"), [((2400, 1200), (800, 400)), ((30, 9000), (3, 800))])
def test_large_pictures_are_shown_smaller(size: tuple[int, int], smaller: tuple[int, int]) -> None:
    box = (size[0] * 0.25, size[1] * 0.25, size[0] * 0.75, size[1] * 0.75)
    picture = shown(Grounding("", box, 0.5, image=Image.new("RGB", size, GREY)))
    assert picture.size == smaller
    _, _, right, bottom = extent(picture, draw.PALETTE[0])
    assert (right, bottom) == pytest.approx((smaller[0] * 0.75, smaller[1] * 0.75), abs=4)


def test_without_a_picture_there_is_nothing_to_show() -> None:
    alone = Grounding("ball", (1.0, 2.0, 3.0, 4.0), 0.5)
    assert alone._repr_png_() is None
    assert Answers([alone], 0.1)._repr_png_() is None
    assert Answers([], 0.1)._repr_png_() is None

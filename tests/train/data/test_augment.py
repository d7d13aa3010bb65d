"""Augmentation keeps boxes on their things and expressions true."""

import numpy as np
import pytest
from PIL import Image

from train.data.augment import AugmentConfig, augment, swap_sides

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture() -> tuple[Image.Image, np.ndarray]:
    """Two coloured things on black, and their boxes."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[30:50, 20:60] = RED
    pixels[80:110, 100:130] = BLUE
    return Image.fromarray(pixels), np.array([[20, 30, 60, 50], [100, 80, 130, 110]], np.float32)


@pytest.mark.parametrize("name", ["flip", "scale", "crop", "all"])
def test_boxes_stay_on_their_things(name: str) -> None:
    """Whatever is drawn, each box still holds its whole thing and nothing else."""
    shares = {"flip": 1.0, "scale": 0.5, "crop": 0.5}
    config = AugmentConfig(**(shares if name == "all" else {name: shares[name]}))
    sizes = set()
    for seed in range(50):
        changed, boxes, expressions = augment(
            *picture(), ["left one", "right one"], config, np.random.default_rng(seed)
        )
        pixels = np.array(changed)
        for box, colour, area in zip(boxes.astype(int), (RED, BLUE), (20 * 40, 30 * 30), strict=True):
            x1, y1, x2, y2 = box
            assert 0 <= x1 < x2 <= changed.width
            assert 0 <= y1 < y2 <= changed.height
            assert (pixels[y1:y2, x1:x2] == colour).all()
            assert (pixels == colour).all(axis=2).sum() == area
        assert expressions == (["right one", "left one"] if config.flip else ["left one", "right one"])
        sizes.add(changed.size)
    assert len(sizes) > 10 or name == "flip"


def test_colour() -> None:
    """Colours change, boxes, size and words do not."""
    before, boxes = picture()
    config = AugmentConfig(colour=0.5)
    after, same, words = augment(before, boxes, ["left"], config, np.random.default_rng(0))
    assert after.size == before.size
    assert np.array(after).tolist() != np.array(before).tolist()
    assert (same == boxes).all()
    assert words == ["left"]


def test_the_same_numbers_draw_the_same() -> None:
    """Augmentation depends on its generator alone; without options nothing changes."""
    config = AugmentConfig(0.5, 0.3, 0.3, 0.3)
    one, other = (augment(*picture(), ["left"], config, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(np.array(one[0]), np.array(other[0]))
    assert np.array_equal(one[1], other[1])
    still = augment(*picture(), ["left"], AugmentConfig(), np.random.default_rng(3))
    assert np.array_equal(np.array(still[0]), np.array(picture()[0]))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("the man on the left", "the man on the right"),
        ("Leftmost RIGHT left-hand", "Rightmost LEFT right-hand"),
        ("upper-left corner, right side", "upper-right corner, left side"),
        ("2nd from l, lower rt", "2nd from r, lower lt"),
        ("bright upright copyright leftovers alright", "bright upright copyright leftovers alright"),
        ("the dog right behind the left car", "the dog right behind the right car"),
        ("dog on the right behind the car", "dog on the left behind the car"),
        ("girl right next to him", "girl right next to him"),
        ("the man's left arm", "the man's right arm"),
        ("R", "L"),
    ],
)
def test_sides(before: str, after: str) -> None:
    """Left and right are exchanged where they are sides, in their case; exchanged twice, the expression is back."""
    assert swap_sides(before) == after
    assert swap_sides(after) == before


@pytest.mark.parametrize(("name", "value"), [("flip", 1.5), ("scale", -0.1), ("crop", 1.0), ("colour", float("nan"))])
def test_bad_values(name: str, value: float) -> None:
    """A value out of range is named."""
    with pytest.raises(ValueError, match=f"augment.{name} is {value}"):
        AugmentConfig(**{name: value})

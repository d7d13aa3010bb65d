"""The authors' way of making a sample's attention targets: a Python loop over the cells, for comparison."""

import numpy as np
from PIL import Image

SMOOTH = 1e-7


def original_targets(box: tuple[float, float, float, float], size: int) -> list[np.ndarray]:
    """box: y1, x1, y2, x2 in 0..1. Returns (size / stride, size / stride) for strides 8, 16, 32."""
    y1, x1, y2, x2 = (side * size for side in box)
    side = size // 8
    height, width = (y2 - y1) / 16, (x2 - x1) / 16
    centre_y, centre_x = (y1 + y2) / 16, (x1 + x2) / 16
    truth = (centre_y - height / 2, centre_x - width / 2, centre_y + height / 2, centre_x + width / 2)
    finest = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            here = (
                max(row - height / 2, 0.0), max(column - width / 2, 0.0),
                min(row + height / 2, side), min(column + width / 2, side),
            )  # fmt: skip
            finest[row, column] = overlap(truth, here)
    image = Image.fromarray(finest.astype(np.float32))
    coarser = [image.resize((size // stride, size // stride), Image.Resampling.BILINEAR) for stride in (16, 32)]
    return [finest, *(np.asarray(reduced) for reduced in coarser)]


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Their IoU of two boxes."""
    height = max(min(one[2], other[2]) - max(one[0], other[0]), 0.0)
    width = max(min(one[3], other[3]) - max(one[1], other[1]), 0.0)
    shared = height * width
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return (shared + SMOOTH) / (areas - shared + SMOOTH)

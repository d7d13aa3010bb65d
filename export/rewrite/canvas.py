"""The head's convolutions over all levels at once: the maps lie beside each other on one, with a gap of zeros between.

Exact, for a gap of one cell is what a 3x3 convolution sees beyond a map's edge. At 320 pixels it costs a seventh more
products, and each convolution that fills a GPU spares it five small ones. For half precision, where `winograd` rounds
too coarsely.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from export.rewrite.cells import CellsHead, Sizes
from export.rewrite.head import SplitConvolution, SplitHead
from model.anchors import cell_centres, on_device
from model.gin import GIN


class CanvasHead(CellsHead):
    """Stands in for a `SplitHead`."""

    def __init__(self, head: SplitHead) -> None:
        super().__init__()
        self.first: SplitConvolution = head.first
        self.hidden, self.output = head.hidden, head.output

    def cells(self, pyramid: Sequence[Tensor], expressions: Tensor) -> Tensor:
        """As `CellsHead.cells`."""
        sizes = tuple((level.shape[2], level.shape[3]) for level in pyramid)
        device, dtype = expressions.device, expressions.dtype
        (height, width), _ = lay_out(sizes)
        order, places = (on_device(make, device, torch.int64, sizes) for make in (canvas_order, canvas_places))
        painted = on_device(canvas_mask, device, dtype, sizes)  # (H, W)
        cells = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in pyramid], dim=1)  # (N, cells, C)
        canvas = F.pad(cells, (0, 0, 0, 1)).index_select(1, order).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        hidden = self.first.of_map(canvas) + self._language(expressions, sizes) + self._position(sizes, device, dtype)
        hidden = F.relu(hidden) * painted
        for convolution in self.hidden:
            hidden = F.relu(convolution(hidden)) * painted
        return hidden.permute(2, 3, 0, 1).flatten(0, 1).index_select(0, places)

    def _language(self, expressions: Tensor, sizes: Sizes) -> Tensor:
        """The expression's part of the first convolution: (N, width, H, W)."""
        N, (size, _), device = expressions.shape[0], lay_out(sizes), expressions.device
        kinds = on_device(kinds_of_places, device, expressions.dtype)  # (17, 9)
        places = on_device(canvas_kinds, device, torch.int64, sizes)  # (HW,)
        taps = self.first.of_expression(expressions).view(N, -1, 9).transpose(1, 2)  # (N, 9, width)
        return (kinds @ taps).index_select(1, places).transpose(1, 2).unflatten(2, size)

    def _position(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The position's part of the first convolution, and its bias: (width, H, W)."""
        size, _ = lay_out(sizes)
        seen = on_device(canvas_centres, device, dtype, sizes)  # (HW, 18)
        weight = self.first.of_position.flatten(1)  # (width, 18)
        return (seen @ weight.T + self.first.bias).T.unflatten(1, size)


def lay_out(sizes: Sizes) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Height and width of the canvas, and (y, x) of each map's corner: the first at the left, the others at its right
    in rows that are no wider than the second."""
    corners = [(0, 0)]
    left = sizes[0][1] + 1
    right = left + (sizes[1][1] if len(sizes) > 1 else -1)
    y, x, below = 0, left, 0
    for height, width in sizes[1:]:
        if x > left and x + width > right:
            y, x = below, left
        corners.append((y, x))
        x, below = x + width + 1, max(below, y + height + 1)
    return (max(sizes[0][0], below - 1), right), corners


def _paint(maps: Sequence[Tensor], sizes: Sizes, background: float) -> Tensor:
    """Maps (h, w, ...) on a canvas (H, W, ...)."""
    size, corners = lay_out(sizes)
    canvas = torch.full((*size, *maps[0].shape[2:]), background, dtype=maps[0].dtype)
    for (y, x), (height, width), drawn in zip(corners, sizes, maps, strict=True):
        canvas[y : y + height, x : x + width] = drawn
    return canvas


def canvas_mask(sizes: Sizes) -> Tensor:
    """1 where there is a map, 0 in the gaps: float64 (H, W)."""
    return _paint([torch.ones(size, dtype=torch.float64) for size in sizes], sizes, 0)


def canvas_order(sizes: Sizes) -> Tensor:
    """Which cell of the maps, level by level and row by row, lies at each place of the canvas; in the gaps the one
    after all: int64 (HW,)."""
    count = sum(height * width for height, width in sizes)
    numbers = torch.arange(count).split([height * width for height, width in sizes])
    maps = [level.view(size) for level, size in zip(numbers, sizes, strict=True)]
    return _paint(maps, sizes, count).flatten()


def canvas_places(sizes: Sizes) -> Tensor:
    """The inverse: where each cell of the maps lies: int64 (cells,)."""
    return canvas_order(sizes).argsort()[: sum(height * width for height, width in sizes)]


def kinds_of_places() -> Tensor:
    """Which taps of a 3x3 convolution lie inside a map, for the kinds of places there are: by the row's kind, then by
    the column's; and none, of a gap. 1 or 0, float64 (17, 9)."""
    alone, first, inner, last = [0, 1, 0], [0, 1, 1], [1, 1, 1], [1, 1, 0]
    along = torch.tensor([alone, first, inner, last], dtype=torch.float64)
    return torch.cat((torch.kron(along, along), torch.zeros(1, 9, dtype=torch.float64)))


def canvas_kinds(sizes: Sizes) -> Tensor:
    """The kind of each place of the canvas: int64 (HW,)."""

    def along(side: int) -> Tensor:
        return torch.tensor([1, *[2] * (side - 2), 3] if side > 1 else [0])

    return _paint([4 * along(height)[:, None] + along(width) for height, width in sizes], sizes, 16).flatten()


def canvas_centres(sizes: Sizes) -> Tensor:
    """What the 3x3 taps of a convolution see of each map's cell centres: float32 (HW, 18), by y and x, then by tap."""
    seen = []
    for height, width in sizes:
        centres = cell_centres(height, width).permute(2, 0, 1)[None]
        seen.append(F.unfold(centres, kernel_size=3, padding=1)[0].T.unflatten(0, (height, width)))
    return _paint(seen, sizes, 0).flatten(0, 1)


def canvas(network: GIN) -> GIN:
    """Let a split head read all levels at once."""
    network = copy.deepcopy(network).eval()
    if isinstance(network.head, SplitHead):
        network.head = CanvasHead(network.head)
    return network

"""The head's 3x3 convolutions after Winograd: a third of the multiplications, in the head's map of all levels at once.

F(4x4, 3x3) computes 4 x 4 outputs from 6 x 6 inputs with 36 products per pair of channels in place of 144 (Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). The transforms are linear and known beforehand. Exact
in exact arithmetic; in single precision it rounds about ten times as coarsely as the plain sum, which scores do not
show. In half precision they would, so it is for single precision alone.
"""

import copy
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.rewrite.cells import CellsHead, Sizes
from export.rewrite.head import SplitConvolution, SplitHead
from model.anchors import cell_centres, on_device
from model.gin import GIN
from model.taps import taps_inside

TILE = 4  # outputs of a tile along each axis
PATCH = TILE + 2  # inputs of a tile along each axis
POINTS = (0, 1, -1, Fraction(1, 2), -2)  # and infinity: of the small ones these round least (measured)


class WinogradConvolution(nn.Module):
    """A 3x3 convolution with padding 1 over tiles; see `tile_patches` for their order."""

    def __init__(self, weight: Tensor) -> None:
        """weight: (O, C, 3, 3)."""
        super().__init__()
        outputs, kernel, inputs = (matrix.to(weight.device) for matrix in transforms())
        taps = torch.einsum("ai,bj,ocij->abco", kernel, kernel, weight.detach().double())
        self.taps = nn.Parameter(taps.flatten(0, 1).to(weight.dtype).contiguous())  # (36, C, O)
        self.into: Tensor
        self.out_of: Tensor
        self.register_buffer("into", torch.kron(inputs, inputs).to(weight.dtype).contiguous())  # (36, 36)
        self.register_buffer("out_of", torch.kron(outputs, outputs).to(weight.dtype).contiguous())  # (16, 36)

    def forward(self, cells: Tensor, patches: Tensor) -> Tensor:
        """cells: (16 * tiles, N, C). patches: from `tile_patches`. Returns (16 * tiles, N, O)."""
        _, N, C = cells.shape
        seen = torch.cat((cells, cells.new_zeros(1, N, C))).index_select(0, patches)  # (36 * tiles, N, C)
        products = (self.into @ seen.view(PATCH**2, -1)).view(PATCH**2, -1, C) @ self.taps  # (36, tiles * N, O)
        return (self.out_of @ products.view(PATCH**2, -1)).view(-1, N, self.taps.shape[2])


class WinogradHead(CellsHead):
    """Stands in for a `SplitHead`."""

    def __init__(self, head: SplitHead) -> None:
        super().__init__()
        first: SplitConvolution = head.first
        self.of_expression, self.output = first.of_expression, head.output
        self.of_position, self.bias = first.of_position, first.bias
        self.convolutions = nn.ModuleList([WinogradConvolution(first.of_map.weight)])
        self.biases = nn.ParameterList()
        for convolution in head.hidden:
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            self.convolutions.append(WinogradConvolution(convolution.weight))
            self.biases.append(nn.Parameter(convolution.bias.detach().clone()))

    def cells(self, pyramid: Sequence[Tensor], expressions: Tensor) -> Tensor:
        """As `CellsHead.cells`."""
        sizes = tuple((level.shape[2], level.shape[3]) for level in pyramid)
        device, dtype = expressions.device, expressions.dtype
        places, patches = (on_device(make, device, torch.int64, sizes) for make in (cell_places, tile_patches))
        order = on_device(cell_order, device, torch.int64, sizes)
        cells = torch.cat([level.flatten(2).permute(2, 0, 1) for level in pyramid])  # (cells, N, C)
        first, *others = self.convolutions
        hidden = first(cells.index_select(0, order), patches).index_select(0, places)  # (cells, N, width)
        hidden = hidden + self._language(expressions, sizes) + self._position(sizes, device, dtype)[:, None]
        hidden = F.relu(hidden).index_select(0, order)
        for convolution, bias in zip(others, self.biases, strict=True):
            hidden = F.relu(convolution(hidden, patches) + bias)
        return hidden.index_select(0, places)

    def _language(self, expressions: Tensor, sizes: Sizes) -> Tensor:
        """The expression's part of the first convolution: (cells, N, width)."""
        N = expressions.shape[0]
        inside = on_device(all_taps_inside, expressions.device, expressions.dtype, sizes)  # (cells, 9)
        taps = self.of_expression(expressions).view(N, -1, 9).permute(2, 0, 1)  # (9, N, width)
        return (inside @ taps.reshape(9, -1)).view(len(inside), N, -1)

    def _position(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The position's part of the first convolution, and its bias: (cells, width)."""
        parts = []
        for height, width in sizes:
            centres = on_device(cell_centres, device, dtype, height, width).permute(2, 0, 1)[None]
            parts.append(F.conv2d(centres, self.of_position, self.bias, padding=1)[0].flatten(1).T)
        return torch.cat(parts)


def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Of F(4, 3) along one axis, after Toom and Cook: outputs (4, 6) from products, products (6, 3) from the kernel and
    (6, 6) from the inputs; float64."""

    def times(one: Sequence[Fraction | int], other: Sequence[Fraction | int]) -> list[Fraction | int]:
        """Product of two polynomials, coefficients lowest first."""
        product: list[Fraction | int] = [0] * (len(one) + len(other) - 1)
        for i, left in enumerate(one):
            for j, right in enumerate(other):
                product[i + j] += left * right
        return product

    outputs = [[Fraction(point) ** power for point in POINTS] + [int(power == TILE - 1)] for power in range(TILE)]
    kernel, inputs = [], []
    for point in POINTS:
        others: list[Fraction | int] = [1]
        scale = Fraction(1)
        for other in POINTS:
            if other != point:
                others, scale = times(others, [-other, 1]), scale * (point - other)
        kernel.append([Fraction(point) ** power / scale for power in range(3)])
        inputs.append([*others, 0])
    whole: list[Fraction | int] = [1]
    for point in POINTS:
        whole = times(whole, [-point, 1])

    def tensor(rows: Sequence[Sequence[Fraction | int]]) -> Tensor:
        return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)

    return tensor(outputs), tensor([*kernel, [0, 0, 1]]), tensor([*inputs, whole])


def _tiles(sizes: Sizes) -> list[tuple[int, int, int]]:
    """(level, row, column) of every tile; at the right and lower edge they reach beyond the map."""
    return [
        (level, row, column)
        for level, (height, width) in enumerate(sizes)
        for row in range(-(-height // TILE))
        for column in range(-(-width // TILE))
    ]


def _place(sizes: Sizes, tiles: dict[tuple[int, int, int], int], level: int, y: int, x: int) -> int:
    """Where a cell stands among those of all tiles: first by its place in its tile, then by tile. Beyond the map: after
    all, where there is a zero."""
    height, width = sizes[level]
    if not (0 <= y < height and 0 <= x < width):
        return TILE**2 * len(tiles)
    return (y % TILE * TILE + x % TILE) * len(tiles) + tiles[level, y // TILE, x // TILE]


def cell_places(sizes: Sizes) -> Tensor:
    """Where each cell of the maps, level by level and row by row, stands among those of all tiles: int64 (cells,)."""
    tiles = {tile: number for number, tile in enumerate(_tiles(sizes))}
    places = [
        _place(sizes, tiles, level, y, x)
        for level, (height, width) in enumerate(sizes)
        for y in range(height)
        for x in range(width)
    ]
    return torch.tensor(places)


def cell_order(sizes: Sizes) -> Tensor:
    """The inverse: which cell of the maps stands at each place of all tiles, any where there is none: int64
    (16 * tiles,)."""
    places = cell_places(sizes)
    order = torch.zeros(TILE**2 * len(_tiles(sizes)), dtype=torch.int64)
    order[places] = torch.arange(len(places))
    return order


def tile_patches(sizes: Sizes) -> Tensor:
    """The places of what each tile's outputs depend on, by place in the patch, then by tile: int64 (36 * tiles,)."""
    tiles = {tile: number for number, tile in enumerate(_tiles(sizes))}
    patches = [
        _place(sizes, tiles, level, row * TILE + y - 1, column * TILE + x - 1)
        for y in range(PATCH)
        for x in range(PATCH)
        for level, row, column in tiles
    ]
    return torch.tensor(patches)


def all_taps_inside(sizes: Sizes) -> Tensor:
    """`taps_inside` of maps one after another: (cells, 9)."""
    return torch.cat([taps_inside(height, width).T for height, width in sizes])


def winograd(network: GIN) -> GIN:
    """Replace the convolutions of a split head."""
    network = copy.deepcopy(network).eval()
    if isinstance(network.head, SplitHead):
        network.head = WinogradHead(network.head)
    return network

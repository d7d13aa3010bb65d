"""Heads that read all levels together."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from model.head import Head

Sizes = tuple[tuple[int, int], ...]  # (height, width) of the maps, one after another


class CellsHead(nn.Module):
    """Stands in for a `Head` whose levels go through its convolutions at once."""

    forward = Head.forward

    def read(self, pyramid: Sequence[Tensor], expressions: Tensor) -> list[Tensor]:
        """As `Head.read`."""
        sizes = [(level.shape[2], level.shape[3]) for level in pyramid]
        levels = self.cells(pyramid, expressions).split([height * width for height, width in sizes])
        return [level.permute(1, 2, 0).unflatten(2, size) for level, size in zip(levels, sizes, strict=True)]

    @abstractmethod
    def cells(self, pyramid: Sequence[Tensor], expressions: Tensor) -> Tensor:
        """The same, all levels' cells one after another: (cells, N, width)."""

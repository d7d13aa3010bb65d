"""Feature pyramid over the three reasoned maps."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class FeaturePyramid(nn.Module):
    """P3..P5 from the maps with a top-down path, P6 and P7 by stride-2 convolutions, P8 the global average of P7.

    After RetinaNet (Lin et al., 2017), with P8 from ZSGNet.
    """

    def __init__(self, map_width: int, pyramid_width: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.lateral = nn.ModuleList(nn.Conv2d(map_width, pyramid_width, kernel_size=1) for _ in range(3))
        self.smooth = nn.ModuleList(nn.Conv2d(pyramid_width, pyramid_width, kernel_size=3, padding=1) for _ in range(3))
        if max(levels) >= 6:
            self.p6 = nn.Conv2d(map_width, pyramid_width, kernel_size=3, stride=2, padding=1)
        if max(levels) >= 7:
            self.p7 = nn.Conv2d(pyramid_width, pyramid_width, kernel_size=3, stride=2, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps: three (N, map_width, h, w), finest first. Returns (N, pyramid_width, h, w) for each of `levels`."""
        top_down = [self.lateral[2](maps[2])]
        for lateral, features in ((self.lateral[1], maps[1]), (self.lateral[0], maps[0])):
            top_down.insert(0, lateral(features) + F.interpolate(top_down[0], scale_factor=2))  # nearest
        pyramid = [smooth(features) for smooth, features in zip(self.smooth, top_down, strict=True)]
        highest = max(self.levels)
        if highest >= 6:
            pyramid.append(self.p6(maps[2]))
        if highest >= 7:
            pyramid.append(self.p7(F.relu(pyramid[-1])))
        if highest == 8:
            pyramid.append(F.adaptive_avg_pool2d(pyramid[-1], 1))
        return [pyramid[level - 3] for level in self.levels]

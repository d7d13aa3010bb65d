"""Feature pyramid over three maps: GARAN's, AFS's or the backbone's own."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class FeaturePyramid(nn.Module):
    """P3..P5 from the maps with a top-down path, P6 and P7 by stride-2 convolutions, P8 the global average of P7.

    After RetinaNet (Lin et al., 2017), with P8 from ZSGNet.
    """

    def __init__(self, channels: Sequence[int], pyramid_width: int, levels: Sequence[int]) -> None:
        """channels: of the three maps, finest first. Lateral and smoothing convolutions exist at all three, as in the
        authors' checkpoints, even where no wanted level needs them."""
        super().__init__()
        self.levels = tuple(levels)
        self.lateral = nn.ModuleList(nn.Conv2d(count, pyramid_width, kernel_size=1) for count in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(pyramid_width, pyramid_width, kernel_size=3, padding=1) for _ in channels)
        if max(levels) >= 6:
            self.p6 = nn.Conv2d(channels[2], pyramid_width, kernel_size=3, stride=2, padding=1)
        if max(levels) >= 7:
            self.p7 = nn.Conv2d(pyramid_width, pyramid_width, kernel_size=3, stride=2, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps: three (N, C, h, w), finest first. Returns (N, pyramid_width, h, w) for each of `levels`."""
        pyramid: dict[int, Tensor] = {}
        merged: Tensor | None = None
        for level in range(5, min(self.levels) - 1, -1):
            features = self.lateral[level - 3](maps[level - 3])
            if merged is not None:
                features = features + _upsample(merged, features.shape[2], features.shape[3])
            merged = features
            if level in self.levels:
                pyramid[level] = self.smooth[level - 3](merged)
        highest = max(self.levels)
        if highest >= 6:
            pyramid[6] = self.p6(maps[2])
        if highest >= 7:
            pyramid[7] = self.p7(F.relu(pyramid[6]))
        if highest == 8:
            pyramid[8] = F.adaptive_avg_pool2d(pyramid[7], 1)
        return [pyramid[level] for level in self.levels]


def _upsample(features: Tensor, height: int, width: int) -> Tensor:
    """Nearest neighbours. A size that was odd before halving is not the double; the plain double exports to ONNX."""
    if (height, width) == (2 * features.shape[2], 2 * features.shape[3]):
        return F.interpolate(features, scale_factor=2)
    return F.interpolate(features, size=(height, width))

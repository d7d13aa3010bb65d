"""SSD's VGG16 (Liu et al., 2016) as ZSGNet uses it: a backbone that makes the pyramid's maps itself."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # VGG16's convolutions
CONV4_3 = 23  # layers up to it and its ReLU
REDUCED_WIDTH = 1024  # channels of fc6 and fc7, 4096 before SSD thinned them out
# of each extra map: channels between its two convolutions, stride and padding of the second
EXTRAS = ((256, 2, 1), (128, 2, 1), (128, 1, 0), (128, 1, 0))
FIRST_EXTRA_WIDTH = 512


class SSDVGG16(nn.Module):
    """Six maps, levels 3 to 8: conv4_3 divided by its norm over channels, fc7, and four that extra layers reduce.

    The first three are projected to `pyramid_width`, which the others have. The layers are numbered as in the authors'
    checkpoints and all exist, even where no wanted level needs them.
    """

    def __init__(self, pyramid_width: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.vgg = nn.ModuleList(_vgg_layers())
        widths = (REDUCED_WIDTH, FIRST_EXTRA_WIDTH, pyramid_width, pyramid_width, pyramid_width)
        self.extras = nn.ModuleList()
        for (before, after), (between, stride, padding) in zip(pairwise(widths), EXTRAS, strict=True):
            self.extras.append(nn.Conv2d(before, between, kernel_size=1))
            self.extras.append(nn.Conv2d(between, after, kernel_size=3, stride=stride, padding=padding))
        projected = (BLOCKS[3][-1], REDUCED_WIDTH, FIRST_EXTRA_WIDTH)
        self.project = nn.ModuleList(nn.Conv2d(count, pyramid_width, kernel_size=1) for count in projected)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (B, 3, H, W) float RGB in 0..1, sides of 268 pixels or more.

        Returns (B, pyramid_width, h, w) for each of `levels`, finest first; 38, 19, 10, 5, 3 and 1 cells at 300 pixels.
        """
        layers = cast(list[nn.Module], list(self.vgg))
        features = _through(layers[:CONV4_3], images)
        maps = [F.normalize(features, dim=1)]
        features = _through(layers[CONV4_3:], features)
        maps.append(features)
        for index, extra in enumerate(self.extras):
            features = F.relu(extra(features))
            if index % 2:
                maps.append(features)
        for index, projection in enumerate(self.project):
            maps[index] = projection(maps[index])
        return [maps[level - 3] for level in self.levels]


def _through(layers: Sequence[nn.Module], features: Tensor) -> Tensor:
    for layer in layers:
        features = layer(features)
    return features


def _vgg_layers() -> list[nn.Module]:
    """VGG16 with its last pooling at stride 1 and its first two linear layers as convolutions, the first dilated."""
    layers: list[nn.Module] = []
    channels = 3
    for block, widths in enumerate(BLOCKS):
        if block:
            layers.append(nn.MaxPool2d(kernel_size=2, ceil_mode=block == 3))  # 75 cells become 38
        for width in widths:
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    layers.append(nn.MaxPool2d(kernel_size=3, stride=1, padding=1))
    fc6 = nn.Conv2d(channels, REDUCED_WIDTH, kernel_size=3, padding=6, dilation=6)
    fc7 = nn.Conv2d(REDUCED_WIDTH, REDUCED_WIDTH, kernel_size=1)
    return [*layers, fc6, nn.ReLU(inplace=True), fc7, nn.ReLU(inplace=True)]

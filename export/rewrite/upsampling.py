"""AFS branches that go up, with their 3x3 convolution done at the small size.

Bilinear upsampling mixes positions and a 1x1 convolution mixes channels, so they commute. A 3x3 convolution of an
upsampled map is the sum of nine such 1x1 convolutions, each upsampled and shifted by one position, with zeros from
beyond the edge. Upsampling and shifting are linear along each axis: a matrix, small and known beforehand.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.afs import AdaptiveFeatureSelection, Branch
from model.anchors import on_device
from model.gin import GIN


class EarlyConvolution(nn.Module):
    """Stands in for a `Branch` that upsamples."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.factor = 2**-branch.octaves
        weight = branch.conv1.weight.detach()  # (O, I, rows, columns)
        taps = weight.permute(2, 0, 3, 1)  # (rows, O, columns, I)
        self.width = weight.shape[0]
        self.taps = nn.Conv2d(weight.shape[1], 9 * self.width, kernel_size=1, bias=False)
        self.taps.weight = nn.Parameter(taps.reshape(9 * self.width, -1, 1, 1).contiguous())
        assert branch.conv1.bias is not None
        self.bias = nn.Parameter(branch.conv1.bias.detach().clone())
        self.norm1, self.conv2, self.norm2 = branch.norm1, branch.conv2, branch.norm2

    def forward(self, features: Tensor) -> Tensor:
        """(B, I, h, w) -> (B, C, h * factor, w * factor)."""
        B, _, h, w = features.shape
        rows, columns = (
            on_device(upsampling_taps, features.device, features.dtype, side, side * self.factor) for side in (h, w)
        )
        taps = self.taps(features).view(B, 3, self.width, 3, h, w)
        wide = taps.transpose(3, 4).reshape(B, 3, self.width, h, 3 * w) @ columns  # (B, 3, O, h, W)
        tall = wide.transpose(1, 2).reshape(B, self.width, 3 * h, w * self.factor)
        convolved = rows.T @ tall + self.bias[:, None, None]  # (B, O, H, W)
        return F.leaky_relu(self.norm2(self.conv2(F.leaky_relu(self.norm1(convolved), 0.1))), 0.1)


def upsampling_taps(small: int, large: int) -> Tensor:
    """Linear upsampling with aligned corners from `small` to `large` positions, seen by the three taps of a convolution
    with one zero beyond each end: float64 (3 * small, large)."""
    places = torch.arange(large, dtype=torch.float64) * ((small - 1) / (large - 1))
    low = places.floor().clamp(max=max(small - 2, 0)).long()
    share = places - low
    matrix = torch.zeros(large + 2, small, dtype=torch.float64)  # a row of zeros beyond each end
    inner = torch.arange(large) + 1
    matrix[inner, low] += 1 - share
    matrix[inner, (low + 1).clamp(max=small - 1)] += share
    return torch.cat([matrix[tap : tap + large] for tap in range(3)], dim=1).T.contiguous()


def convolve_before_upsampling(network: GIN) -> GIN:
    """Replace every branch that upsamples."""
    network = copy.deepcopy(network).eval()
    for selection in network.modules():
        if isinstance(selection, AdaptiveFeatureSelection):
            for index, branch in enumerate(selection.branches):
                if isinstance(branch, Branch) and branch.octaves < 0:
                    selection.branches[index] = EarlyConvolution(branch)
    return network

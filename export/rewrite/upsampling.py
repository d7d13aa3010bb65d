"""AFS branches that go up, with their 3x3 convolution done at the small size: see `model.taps`."""

import copy

from torch import Tensor, nn
from torch.nn import functional as F

from model.afs import AdaptiveFeatureSelection, Branch
from model.anchors import on_device
from model.gin import GIN
from model.taps import upsampling_taps


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


def convolve_before_upsampling(network: GIN) -> GIN:
    """Replace every branch that upsamples."""
    network = copy.deepcopy(network).eval()
    for selection in network.modules():
        if isinstance(selection, AdaptiveFeatureSelection):
            for index, branch in enumerate(selection.branches):
                if isinstance(branch, Branch) and branch.octaves < 0:
                    selection.branches[index] = EarlyConvolution(branch)
    return network

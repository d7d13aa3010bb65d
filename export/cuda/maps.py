"""Feature selection on maps that lie channels last in memory, where a compiler makes one kernel of the selection."""

import copy
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from export.rewrite.upsampling import EarlyConvolution
from model.afs import AdaptiveFeatureSelection, Branch
from model.gin import GIN
from model.taps import convolve_upsampled


def channels_last(network: GIN) -> GIN:
    """Select features, and convolve before upsampling, on maps that lie channels last. Exact. Raises ValueError where
    the branches' batch norms are not folded or they upsample first."""
    network = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, AdaptiveFeatureSelection):
            network.set_submodule(name, ChannelsLastSelection(module))
    return network


class ChannelsLastSelection(nn.Module):
    """Stands in for an `AdaptiveFeatureSelection`. What its branches bring is finished, with the last bias and
    rectification, when it is selected: that reads the maps anyway."""

    def __init__(self, selection: AdaptiveFeatureSelection) -> None:
        super().__init__()
        self.weights = selection.weights
        branches = cast(list[Branch | EarlyConvolution], list(selection.branches))
        for branch in branches:
            if isinstance(branch.norm1, nn.BatchNorm2d) or (isinstance(branch, Branch) and branch.octaves < 0):
                raise ValueError('the form for GPUs needs the rewritings "norms" and "upsampling"')
        self.biases = nn.ParameterList([branch.conv2.bias for branch in branches])
        self.branches = nn.ModuleList(
            EarlyBranch(branch) if isinstance(branch, EarlyConvolution) else OpenBranch(branch) for branch in branches
        )

    def bring(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone maps at this level, unfinished: (B, C, h, w) each."""
        return [branch(features) for branch, features in zip(self.branches, maps, strict=True)]

    def select(self, brought: Sequence[Tensor], expressions: Tensor, image_index: Tensor) -> Tensor:
        """As `AdaptiveFeatureSelection.select`."""
        shares = self.weights(expressions).softmax(dim=-1)[:, :, None, None, None]  # (N, K, 1, 1, 1)
        pairs = zip(brought, self.biases, strict=True)
        maps = [F.leaky_relu(features + bias[:, None, None], 0.1)[image_index] for features, bias in pairs]
        mixed = maps[0] * shares[:, 0]
        for number, features in enumerate(maps[1:], start=1):
            mixed = mixed + features * shares[:, number]
        return mixed


class OpenBranch(nn.Module):
    """A `Branch` that does not upsample, without its last bias and rectification."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.octaves, self.conv1, self.conv2 = branch.octaves, branch.conv1, without_bias(branch.conv2)

    def forward(self, features: Tensor) -> Tensor:
        """As `Branch.forward`."""
        if self.octaves > 0:
            features = F.avg_pool2d(features, 2**self.octaves)
        return self.conv2(F.leaky_relu(self.conv1(features), 0.1))  # type: ignore[no-any-return]


class EarlyBranch(nn.Module):
    """An `EarlyConvolution` without its last bias and rectification."""

    def __init__(self, early: EarlyConvolution) -> None:
        super().__init__()
        self.factor, self.bias, self.conv2 = early.factor, early.bias, without_bias(early.conv2)
        weight = early.taps.weight.detach().view(3, early.width, 3, -1)  # (rows, O, columns, I)
        self.taps = nn.Parameter(weight.permute(2, 0, 1, 3).reshape(9 * early.width, -1).contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """As `EarlyConvolution.forward`."""
        convolved = convolve_upsampled(features, self.taps, self.bias, self.factor)
        return self.conv2(F.leaky_relu(convolved, 0.1))  # type: ignore[no-any-return]


def without_bias(convolution: nn.Conv2d) -> nn.Conv2d:
    """A copy of a convolution without its bias."""
    convolution = copy.deepcopy(convolution)
    convolution.bias = None
    return convolution

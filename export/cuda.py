"""A rewritten network in half precision in the form that is fastest on an NVIDIA GPU.

Its matrix units want channels last, and every kernel less is a few microseconds less. So maps stay channels last
throughout, and cuDNN adds biases and residuals and rectifies while it convolves.
"""

import copy
import operator
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from export.rewrite.upsampling import EarlyConvolution, upsampling_taps
from model.afs import AdaptiveFeatureSelection
from model.anchors import on_device
from model.backbone import Backbone
from model.gin import GIN


def for_cuda(network: GIN) -> GIN:
    """A copy of a rewritten network in half precision, on the GPU."""
    network = fuse_relus(channels_last(network))
    return network.cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def channels_last(network: GIN) -> GIN:
    """Select features, and convolve before upsampling, on maps that lie channels last in memory. Exact."""
    network = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, AdaptiveFeatureSelection):
            network.set_submodule(name, ChannelsLastSelection(module))
        elif isinstance(module, EarlyConvolution):
            network.set_submodule(name, ChannelsLastEarlyConvolution(module))
    return network


class ChannelsLastSelection(nn.Module):
    """Stands in for an `AdaptiveFeatureSelection`."""

    def __init__(self, selection: AdaptiveFeatureSelection) -> None:
        super().__init__()
        self.branches, self.weights = selection.branches, selection.weights

    def bring(self, maps: Sequence[Tensor]) -> Tensor:
        """As `AdaptiveFeatureSelection.bring`."""
        pairs = zip(self.branches, maps, strict=True)
        return torch.stack([branch(features).permute(0, 2, 3, 1) for branch, features in pairs], 1).permute(
            0, 1, 4, 2, 3
        )

    def select(self, brought: Tensor, expressions: Tensor, image_index: Tensor) -> Tensor:
        """As `AdaptiveFeatureSelection.select`, channels last."""
        B, K, C, h, w = brought.shape
        weights = self.weights(expressions).softmax(dim=-1)  # (N, K)
        own = image_index[:, None] == torch.arange(B, device=brought.device)  # (N, B)
        mixing = (own[:, :, None] * weights[:, None]).reshape(-1, B * K)
        rows = brought.permute(0, 1, 3, 4, 2).reshape(B * K, h * w * C)
        return (mixing @ rows).reshape(-1, h, w, C).permute(0, 3, 1, 2)


class ChannelsLastEarlyConvolution(nn.Module):
    """Stands in for an `EarlyConvolution`."""

    def __init__(self, early: EarlyConvolution) -> None:
        super().__init__()
        self.factor, self.width, self.bias = early.factor, early.width, early.bias
        self.norm1, self.conv2, self.norm2 = early.norm1, early.conv2, early.norm2
        weight = early.taps.weight.detach().view(3, self.width, 3, -1)  # (rows, O, columns, I)
        self.taps = nn.Linear(weight.shape[3], 9 * self.width, bias=False)
        self.taps.weight = nn.Parameter(weight.permute(2, 0, 1, 3).reshape(9 * self.width, -1).contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """As `EarlyConvolution.forward`."""
        B, _, h, w = features.shape
        rows, columns = (
            on_device(taps_by_place, features.device, features.dtype, side, side * self.factor) for side in (h, w)
        )
        taps = self.taps(features.permute(0, 2, 3, 1)).view(B, h, 3 * w, 3 * self.width)  # (B, h, w and column, ...)
        wide = (columns @ taps).view(B, h, -1, 3, self.width).transpose(2, 3)  # (B, h, 3, W, O)
        tall = rows @ wide.reshape(B, 3 * h, -1)  # (B, H, W * O)
        convolved = (tall.unflatten(2, (-1, self.width)) + self.bias).permute(0, 3, 1, 2)
        return F.leaky_relu(self.norm2(self.conv2(F.leaky_relu(self.norm1(convolved), 0.1))), 0.1)


def taps_by_place(small: int, large: int) -> Tensor:
    """`upsampling_taps` the other way round, and by place before tap: float64 (large, small * 3)."""
    return upsampling_taps(small, large).view(3, small, large).permute(2, 1, 0).reshape(large, small * 3).contiguous()


def fuse_relus(network: GIN) -> GIN:
    """Let cuDNN rectify what the backbone's convolutions give. Batch norms must be folded."""
    network = copy.deepcopy(network).eval()
    if isinstance(network.backbone, Backbone):
        network.backbone.body = _fuse(cast(fx.GraphModule, network.backbone.body))
    return network


def _fuse(body: fx.GraphModule) -> fx.GraphModule:
    modules = dict(body.named_modules())

    def convolves(node: fx.Node) -> bool:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        return isinstance(module, nn.Conv2d) and module.groups == 1 and len(node.users) == 1

    for node in body.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.ReLU):
            continue
        (before,) = node.args
        added = before.target in (operator.add, operator.iadd, torch.add) and len(before.users) == 1
        convolution, *residual = before.args if added else (before,)
        if not convolves(convolution):
            continue
        body.set_submodule(convolution.target, ConvolutionReLU(modules[convolution.target]))
        with body.graph.inserting_before(node):
            node.replace_all_uses_with(body.graph.call_module(convolution.target, (*convolution.args, *residual)))
        for done in (node, before, convolution) if added else (node, convolution):
            body.graph.erase_node(done)
    body.recompile()
    return body


class ConvolutionReLU(nn.Module):
    """relu(convolution(x) + residual) in one kernel of cuDNN."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.shape: Any = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)

    def forward(self, features: Tensor, residual: Tensor | None = None) -> Tensor:
        """features: (B, C, h, w). residual: as the output."""
        features = features.contiguous(memory_format=torch.channels_last)  # which decides how the output lies
        if residual is None:
            return torch.cudnn_convolution_relu(features, self.weight, self.bias, *self.shape)
        return torch.cudnn_convolution_add_relu(features, self.weight, residual, 1.0, self.bias, *self.shape)


@torch.library.register_fake("aten::cudnn_convolution_relu")
def _relu_result(features: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
    """How its result lies in memory, which compilers ask for and PyTorch does not know."""
    stride, padding, dilation, groups = shape
    result = torch.ops.aten.convolution(features, weight, bias, stride, padding, dilation, False, [0, 0], groups)
    return result.contiguous(memory_format=torch.channels_last)


@torch.library.register_fake("aten::cudnn_convolution_add_relu")
def _add_relu_result(
    features: Tensor, weight: Tensor, _residual: Tensor, _alpha: Any, bias: Tensor | None, *shape: Any
) -> Tensor:
    return _relu_result(features, weight, bias, *shape)

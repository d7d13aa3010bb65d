"""The backbone's convolutions as an NVIDIA GPU likes them: cuDNN adds biases and residuals and rectifies while it
convolves, and the first one sees more than three channels."""

import copy
import operator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from model.backbone import Backbone
from model.gin import GIN

CHANNELS = 16  # a multiple of what the matrix units take at once


def fuse_convolutions(network: GIN) -> GIN:
    """Let cuDNN rectify what the backbone's convolutions give. Batch norms must be folded. Exact but for rounding."""
    network = copy.deepcopy(network).eval()
    if isinstance(network.backbone, Backbone):
        network.backbone.body = _fuse(cast(fx.GraphModule, network.backbone.body))
    return network


def _fuse(body: fx.GraphModule) -> fx.GraphModule:
    modules = dict(body.named_modules())

    def convolution_of(node: Any) -> nn.Conv2d | None:
        """Whose output is used once."""
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        return module if isinstance(module, nn.Conv2d) and len(node.users) == 1 else None

    for node in body.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.ReLU):
            continue
        (before,) = node.args
        added = before.target in (operator.add, operator.iadd, torch.add) and len(before.users) == 1
        fused, *residual = before.args if added else (before,)
        convolution = convolution_of(fused)
        if convolution is None or convolution.groups != 1:
            continue
        if residual and (other := convolution_of(residual[0])) is not None:  # one addition of biases, not two
            assert convolution.bias is not None
            assert other.bias is not None
            convolution.bias = nn.Parameter(convolution.bias.detach() + other.bias.detach())
            other.bias = None
        form = FoldedStem if is_stem(convolution) else ConvolutionReLU
        body.set_submodule(fused.target, form(convolution))
        with body.graph.inserting_before(node):
            node.replace_all_uses_with(body.graph.call_module(fused.target, (*fused.args, *residual)))
        for done in (node, before, fused) if added else (node, fused):
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


def is_stem(convolution: nn.Conv2d) -> bool:
    """Whether it sees colours and halves the picture, with a kernel of three or seven."""
    (side, _), (padding, _) = convolution.kernel_size, cast(tuple[int, int], convolution.padding)
    square = convolution.kernel_size == (side, side) and convolution.padding == (padding, padding)
    plain = convolution.dilation == (1, 1) and convolution.groups == 1
    halves = convolution.in_channels == 3 and convolution.stride == (2, 2)
    return plain and halves and square and side in (3, 7) and padding == side // 2


class FoldedStem(nn.Module):
    """A network's first convolution with stride 2, as one with stride 1 on squares of 2 x 2 pixels.

    A tap of the first becomes a channel and a tap of half the kernel; one more tap, of zeros, makes the kernel even.
    The twelve channels are filled up with zeros. Known as space to depth (MLPerf's ResNet-50 on TPUs).
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        side, padding = convolution.kernel_size[0], int(convolution.padding[0])
        squares = (side + 1) // 2
        folded = F.pixel_unshuffle(F.pad(convolution.weight.detach(), (1, 0, 1, 0)), 2)  # (O, 12, squares, squares)
        spare = CHANNELS - folded.shape[1]
        inner = nn.Conv2d(CHANNELS, convolution.out_channels, squares)
        inner.weight = nn.Parameter(F.pad(folded, (0, 0, 0, 0, 0, spare)).contiguous())
        inner.bias = convolution.bias
        self.convolution = ConvolutionReLU(inner)
        before = (padding + 1) // 2
        self.margin = (before, squares - 1 - before) * 2 + (0, spare)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W), H and W even."""
        return cast(Tensor, self.convolution(F.pad(F.pixel_unshuffle(images, 2), self.margin)))


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

"""The form for a GPU answers as the network it was made from."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from export.cuda import ConvolutionReLU, channels_last, for_cuda, fuse_relus
from export.precision import lower
from export.rewrite import rewrite, rewritings_for
from tests.export.test_rewrite import largest_difference, make_inputs, make_network


def test_channels_last() -> None:
    """To 1e-9 in double precision, on maps that lie either way."""
    network = make_network().double()
    changed = channels_last(rewrite(network, rewritings_for("fp16")))
    images, *expressions = make_inputs((64, 96), 7, torch.float64)
    assert largest_difference(network, changed, (images, *expressions)) <= 1e-9
    images, changed = images.to(memory_format=torch.channels_last), changed.to(memory_format=torch.channels_last)
    assert largest_difference(network, changed, (images, *expressions)) <= 1e-9


@pytest.mark.parametrize(("backbone", "fused"), [("resnet18", 17), ("resnet50", 49), ("shufflenet_v2_x0_5", 36)])
def test_fused_relus(backbone: str, fused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that follow a convolution are cuDNN's, for which PyTorch's own operations stand in here."""

    def relu(x: Tensor, weight: Tensor, bias: Tensor, *shape: object) -> Tensor:
        return F.relu(F.conv2d(x, weight, bias, *shape))

    def add_relu(x: Tensor, weight: Tensor, residual: Tensor, alpha: float, bias: Tensor, *shape: object) -> Tensor:
        return F.relu(F.conv2d(x, weight, bias, *shape) + alpha * residual)

    monkeypatch.setattr(torch, "cudnn_convolution_relu", relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu)
    network = make_network(backbone=backbone).double()
    changed = fuse_relus(rewrite(network))
    assert sum(isinstance(module, ConvolutionReLU) for module in changed.modules()) == fused
    assert largest_difference(network, changed, make_inputs((64, 96), 3, torch.float64)) <= 1e-9


def test_shapes_of_fused_kernels() -> None:
    """Compilers, which run nothing, see the shape and the layout that cuDNN gives."""
    with FakeTensorMode():
        features, residual = (torch.empty(2, channels, 9, 5, device="cuda", dtype=torch.float16) for channels in (4, 8))
        fused = ConvolutionReLU(nn.Conv2d(4, 8, 3, padding=1, device="cuda", dtype=torch.float16))
        for answer in (fused(features), fused(features, residual)):
            assert answer.shape == (2, 8, 9, 5)
            assert answer.is_contiguous(memory_format=torch.channels_last)
            assert (answer.device, answer.dtype) == (features.device, features.dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@torch.inference_mode()
def test_on_a_gpu(precision: str) -> None:
    """Scores stay near those of the network as trained."""
    network = make_network(backbone="resnet50")
    changed = for_cuda(lower(rewrite(network, rewritings_for(precision)), precision))
    images, *expressions = make_inputs((64, 96), 7, torch.float32)
    expected = network(images, *expressions)
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    features = changed.encode_image(images.cuda().to(dtype))
    ids, lengths, image_index = (tensor.cuda() for tensor in expressions)
    encoded = changed.encode_expression(ids, lengths).to(dtype)
    pyramid, encoded, _ = changed.reason(features, encoded, image_index)
    logits, _ = changed.head.scores(pyramid, encoded)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(logits.sigmoid().cpu(), expected.score_logits.sigmoid(), atol=0.1, rtol=0)

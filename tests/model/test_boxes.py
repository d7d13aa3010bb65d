"""Box formats, box coding, anchors."""

import torch

from model.anchors import cell_centres, make_anchors, on_device
from model.boxes import (
    box_iou,
    clip_xyxy,
    decode_boxes,
    encode_boxes,
    xyxy_to_yxyx,
    yxhw_to_yxyx,
    yxyx_to_xyxy,
    yxyx_to_yxhw,
)


def random_boxes(count: int) -> torch.Tensor:
    """Boxes yxyx in -1..1."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(count, 2, generator=generator) * 1.5 - 1
    return torch.cat((low, low + 0.05 + torch.rand(count, 2, generator=generator) * 0.4), dim=1)


def test_corner_formats() -> None:
    """A box by hand: x1, y1, x2, y2 = 10, 20, 30, 40 on a picture 80 high and 100 wide."""
    size = torch.tensor([80.0, 100.0])
    normal = xyxy_to_yxyx(torch.tensor([10.0, 20, 30, 40]), size)
    torch.testing.assert_close(normal, torch.tensor([-0.5, -0.8, 0.0, -0.4]))
    torch.testing.assert_close(yxyx_to_xyxy(normal, size), torch.tensor([10.0, 20, 30, 40]))


def test_coding_round_trip() -> None:
    """Decoding what was encoded gives the box back, for every anchor."""
    anchors = make_anchors([(4, 4), (2, 3)], [2.0, 3.0], [0.5, 1.0]).float()
    boxes = yxyx_to_yxhw(random_boxes(5))
    decoded = decode_boxes(encode_boxes(boxes[:, None], anchors[None]), anchors[None])
    torch.testing.assert_close(decoded, boxes[:, None].expand_as(decoded), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(yxhw_to_yxyx(boxes), random_boxes(5))


def test_iou() -> None:
    """Apart, half overlapping, and the same."""
    box = torch.tensor([0.0, 0, 2, 2])
    others = torch.tensor([[3.0, 3, 4, 4], [0, 1, 2, 3], [0, 0, 2, 2]])
    torch.testing.assert_close(box_iou(box, others), torch.tensor([0.0, 1 / 3, 1.0]))


def test_clipping() -> None:
    """A box is cut off at the picture's border."""
    clipped = clip_xyxy(torch.tensor([[-5.0, -1, 300, 50]]), torch.tensor([[40, 200]]))
    assert clipped.tolist() == [[0, 0, 200, 40]]


def test_anchor_order_and_size() -> None:
    """Maps as given, then rows, columns, ratios, scales; an anchor of scale 1 and ratio 1 is one cell."""
    anchors = make_anchors([(2, 4), (1, 1)], scales=[1.0, 2.0], ratios=[1.0, 4.0]).float()
    assert anchors.shape == ((2 * 4 + 1) * 4, 4)
    expected = [
        [-0.5, -0.75, 1.0, 0.5],  # first cell: ratio 1, scale 1
        [-0.5, -0.75, 2.0, 1.0],  # scale 2
        [-0.5, -0.75, 2.0, 0.25],  # ratio 4: twice as high, half as wide
        [-0.5, -0.75, 4.0, 0.5],
        [-0.5, -0.25, 1.0, 0.5],  # next column
    ]
    torch.testing.assert_close(anchors[:5], torch.tensor(expected))
    torch.testing.assert_close(anchors[16, :2], torch.tensor([0.5, -0.75]))  # next row
    torch.testing.assert_close(anchors[32], torch.tensor([0.0, 0.0, 2.0, 2.0]))  # next map


def test_constants_are_kept() -> None:
    """Anchors are made once for the same maps, with the very same values, and those of an evaluation serve training."""
    arguments = (((3, 5), (1, 1)), (4.0, 5.0), (0.5, 2.0))
    with torch.inference_mode():
        kept = on_device(make_anchors, torch.device("cpu"), torch.float64, *arguments)
    assert on_device(make_anchors, torch.device("cpu"), torch.float64, *arguments) is kept
    assert not kept.is_inference()
    assert kept.dtype == torch.float64
    assert torch.equal(kept, make_anchors(*arguments))
    half = on_device(cell_centres, torch.device("cpu"), torch.float16, 3, 5)
    assert torch.equal(half, cell_centres(3, 5).half())


def test_traces() -> None:
    """What is made while a network is exported is not what later calls get; if the network has run before, it is a
    constant of a TorchScript trace."""

    def centres(features: torch.Tensor) -> torch.Tensor:
        return features + on_device(cell_centres, features.device, features.dtype, 7, 9)

    class Network(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return centres(features)

    torch.export.export(Network(), (torch.zeros(7, 9, 2),))
    centres(torch.zeros(7, 9, 2))
    traced = torch.jit.trace(Network(), (torch.zeros(7, 9, 2),))
    assert "linspace" not in str(traced.graph)
    assert torch.equal(traced(torch.zeros(7, 9, 2)), cell_centres(7, 9))
    assert torch.equal(centres(torch.zeros(7, 9, 2)), cell_centres(7, 9))

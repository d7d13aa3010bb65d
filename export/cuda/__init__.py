"""A rewritten network in half precision in the form that is fastest on an NVIDIA GPU.

Its matrix units want channels last and eight channels or more, every kernel less is a few microseconds less, and what
does not fill the GPU is best done beside something else. All of it is exact but for rounding.
"""

import torch

from export.cuda.capture import Captured, compile_pieces
from export.cuda.convolutions import fuse_convolutions
from export.cuda.maps import channels_last
from export.cuda.scores import half_scores
from export.cuda.streams import SideBySide
from export.graphs import ANSWERS, INPUTS, Graph
from model.gin import GIN

__all__ = ["Captured", "compile_pieces", "for_cuda"]


def for_cuda(network: GIN) -> Graph:
    """The graph `gin` of a rewritten network in half precision, on the GPU. Raises ValueError as `SideBySide` does."""
    network = half_scores(fuse_convolutions(channels_last(network))).cuda()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Graph(SideBySide(network).eval(), INPUTS, ANSWERS)

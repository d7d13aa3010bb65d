"""Networks that compute in half precision, with the parts that lose by it left in single precision."""

import copy
from typing import cast

import torch
from torch import nn

from export.rewrite.winner import ScoreFirst
from model.gin import GIN

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
KEPT = (
    "expression",  # costs nothing, and every later layer hears it
    "head.score",  # near-tied anchors would tie: bf16 tells logits near -4 apart in steps of 1/32
    "head.deltas",  # pixels of the box
)


def lower(network: GIN, precision: str) -> GIN:
    """A copy of a rewritten network in "fp16" or "bf16", or the network itself."""
    if precision not in HALVES:
        return network
    lowered = copy.deepcopy(network).to(HALVES[precision]).eval()
    for name in KEPT:
        lowered.set_submodule(name, copy.deepcopy(network.get_submodule(name)))
    head, original = cast(ScoreFirst, lowered.head), cast(ScoreFirst, network.head)
    head.score_bias = nn.Parameter(original.score_bias.detach().clone())
    return lowered

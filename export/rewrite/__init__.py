"""Exact rewritings of a trained network: other operations, the same answers, a fraction of the work.

Each is a function from a network to an equivalent one; the network it is given stays as it is. Any selection of them
works; those of the head come in one order.
"""

from collections.abc import Callable, Iterable

from export.rewrite.canvas import canvas
from export.rewrite.head import split_head
from export.rewrite.keys import absorb_keys
from export.rewrite.norms import fold_norms
from export.rewrite.upsampling import convolve_before_upsampling
from export.rewrite.winner import score_first
from export.rewrite.winograd import winograd
from model.gin import GIN

REWRITINGS: dict[str, Callable[[GIN], GIN]] = {
    "norms": fold_norms,
    "upsampling": convolve_before_upsampling,
    "keys": absorb_keys,
    "split-head": split_head,
    "winograd": winograd,
    "canvas": canvas,
    "winner": score_first,
}
SUITED = {"winograd": ("fp32",), "canvas": ("fp16", "bf16")}  # the others suit any precision


def rewritings_for(precision: str) -> tuple[str, ...]:
    """Names of the rewritings that suit a precision of the export."""
    return tuple(name for name in REWRITINGS if precision in SUITED.get(name, (precision,)))


def rewrite(network: GIN, names: Iterable[str] = tuple(REWRITINGS)) -> GIN:
    """Apply the named rewritings, by default all, to a network in evaluation mode."""
    chosen = set(names)
    unknown = chosen - REWRITINGS.keys()
    if unknown:
        raise ValueError(f"unknown rewriting: {', '.join(sorted(unknown))}; known: {', '.join(REWRITINGS)}")
    for name, apply in REWRITINGS.items():
        if name in chosen:
            network = apply(network)
    return network

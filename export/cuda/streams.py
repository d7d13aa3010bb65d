"""The network in pieces, of which those that do not wait for each other run side by side.

One image does not fill a GPU. So words are read while the backbone looks at the picture, and its finer maps are brought
to the levels while it goes on to the coarser ones. The time saved is that of a CUDA graph; without one, starting the
kernels takes longer than running them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, fx, nn

from export.cuda.maps import ChannelsLastSelection
from export.graphs import ANSWERS, ExpressionPart, precision_of
from model.answer import pixels_to_images
from model.backbone import Backbone
from model.gin import GIN


class SideBySide(nn.Module):
    """Stands in for `export.graphs.Whole`. Its children are the pieces, each from tensors to tensors."""

    def __init__(self, network: GIN) -> None:
        """network: from `for_cuda`. Raises ValueError for one without AFS or GARAN, or with another backbone."""
        super().__init__()
        if not (isinstance(network.backbone, Backbone) and network.config.afs and network.config.garan):
            raise ValueError("only GIN with both modules, on a backbone of torchvision, runs side by side")
        self.language, self.rest = Language(network), Rest(network)
        selections = cast(list[ChannelsLastSelection], list(network.afs))
        first, *others = split_body(cast(fx.GraphModule, network.backbone.body))
        stages = [nn.Sequential(Pixels(network), first), *others]
        self.count = len(stages)
        for number, stage in enumerate(stages):
            self.add_module(f"stage{number}", stage)
            self.add_module(f"bring{number}", Bring([selection.branches[number] for selection in selections]))

    def forward(
        self, images: Tensor, expression_ids: Tensor, lengths: Tensor, image_index: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, ...]:
        """See `Whole`."""
        side = [torch.cuda.Stream() for _ in range(2)] if images.is_cuda else [None, None]
        with beside(side[0]):
            expressions = self.language(expression_ids, lengths)
        maps = [images]  # kept until the end, for the other stream reads them
        brought: list[Tensor] = []
        for number in range(self.count):
            maps.append(self.get_submodule(f"stage{number}")(maps[-1]))
            with beside(side[1]):
                brought += self.get_submodule(f"bring{number}")(maps[-1])
        for stream in side:
            if stream is not None:
                torch.cuda.current_stream().wait_stream(stream)
        return cast(tuple[Tensor, ...], self.rest(expressions, image_index, image_sizes, *brought))


@contextmanager
def beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """What is done meanwhile goes to another stream, after all that the present one has been given; or, without one, to
    the present one."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


class Language(nn.Module):
    """Words to expressions."""

    def __init__(self, network: GIN) -> None:
        super().__init__()
        self.expression, self.dtype = network.expression, precision_of(network)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """As `GIN.encode_expression`, in the network's precision."""
        return cast(Tensor, self.expression(ids, lengths)).to(self.dtype)


class Pixels(nn.Module):
    """Pixels to images."""

    def __init__(self, network: GIN) -> None:
        super().__init__()
        self.dtype = precision_of(network)

    def forward(self, pixels: Tensor) -> Tensor:
        """As `pixels_to_images`, in the network's precision."""
        return pixels_to_images(pixels).to(self.dtype)


class Bring(nn.Module):
    """One map of the backbone, brought to all levels."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """What `ChannelsLastSelection.bring` gives for it, by level."""
        return tuple(branch(features) for branch in self.branches)


class Rest(nn.Module):
    """What needs both sides: selection, reasoning, pyramid, head."""

    def __init__(self, network: GIN) -> None:
        super().__init__()
        self.part = ExpressionPart(network, candidates=1)

    def forward(
        self, expressions: Tensor, image_index: Tensor, image_sizes: Tensor, *brought: Tensor
    ) -> tuple[Tensor, ...]:
        """brought: by map, then by level."""
        levels = len(self.part.network.afs)  # as many as there are maps
        features = [list(brought[level::levels]) for level in range(levels)]
        answers = self.part.answer(cast(list[Tensor], features), expressions, image_index, image_sizes)
        return answers[: len(ANSWERS)]


def split_body(body: fx.GraphModule) -> list[fx.GraphModule]:
    """A backbone's body in stages, from one of its maps to the next."""
    (output,) = (node for node in body.graph.nodes if node.op == "output")
    nodes = iter(body.graph.nodes)
    before, stages = next(nodes), []
    for end in output.args[0].values():
        graph = fx.Graph()
        known = {before: graph.placeholder("features")}
        for node in nodes:
            known[node] = graph.node_copy(node, known.__getitem__)
            if node is end:
                break
        graph.output(known[end])
        stages.append(fx.GraphModule(body, graph))
        before = end
    return stages

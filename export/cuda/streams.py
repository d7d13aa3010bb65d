"""The network in pieces, of which those that do not wait for each other run side by side.

One image does not fill a GPU. So words are read while the backbone looks at the picture, its finer maps are brought to
the levels while it goes on to the coarser ones, and the levels reason at once. The time saved is that of a CUDA graph;
without one, starting the kernels takes longer than running them.
"""

from collections.abc import Iterator
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
        """network: from `for_cuda`. Raises ValueError for one that is not GIN on a backbone of torchvision.

        On a GPU it may run on one stream at a time.
        """
        super().__init__()
        config = network.config
        if not (isinstance(network.backbone, Backbone) and config.afs and config.garan and config.blind == "none"):
            raise ValueError("only GIN with all its parts, on a backbone of torchvision, runs side by side")
        self.language = Language(network)
        first, *others = split_body(cast(fx.GraphModule, network.backbone.body))
        for number, stage in enumerate((nn.Sequential(Pixels(network), first), *others)):
            self.add_module(f"stage{number}", stage)
        self.levels = range(len(network.afs))  # as many as there are stages
        for level in self.levels:
            selection = cast(ChannelsLastSelection, network.afs[level])
            for number, branch in enumerate(selection.branches):
                self.add_module(f"branch{number}{level}", branch)
            self.add_module(f"reason{level}", Reason(selection, network.garan[level]))
        self.answer = Answer(network)
        on_gpu = next(network.parameters()).is_cuda
        self.streams = [torch.cuda.Stream() if on_gpu else None for _ in range(1 + len(self.levels))]

    def forward(
        self, images: Tensor, expression_ids: Tensor, lengths: Tensor, image_index: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, ...]:
        """See `Whole`."""
        words, *levels = self.streams
        with beside(words):
            expressions = self.language(expression_ids, lengths)
        maps = [images]  # kept until the end, for the other streams read them
        brought: list[list[Tensor]] = [[] for _ in self.levels]
        for number in self.levels:
            maps.append(self.get_submodule(f"stage{number}")(maps[-1]))
            for level in self.levels:
                with beside(levels[level]):
                    brought[level].append(self.get_submodule(f"branch{number}{level}")(maps[-1]))
        wait_for(words)
        reasoned: list[Tensor] = []
        for level in self.levels:
            with beside(levels[level]):
                reasoned += self.get_submodule(f"reason{level}")(expressions, image_index, *brought[level])
        for stream in levels:
            wait_for(stream)
        return cast(tuple[Tensor, ...], self.answer(expressions, image_index, image_sizes, *reasoned))


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


def wait_for(stream: torch.cuda.Stream | None) -> None:
    """What the present stream is given from now on comes after what the other has been given."""
    if stream is not None:
        torch.cuda.current_stream().wait_stream(stream)


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


class Reason(nn.Module):
    """Selection and reasoning at one level."""

    def __init__(self, selection: ChannelsLastSelection, garan: nn.Module) -> None:
        super().__init__()
        self.selection, self.garan = selection, garan

    def forward(self, expressions: Tensor, image_index: Tensor, *brought: Tensor) -> tuple[Tensor, Tensor]:
        """brought: of the level. Returns as `GlobalAttentiveReasoning.forward`."""
        selected = self.selection.select(brought, expressions, image_index)
        return cast(tuple[Tensor, Tensor], self.garan(selected, expressions))


class Answer(nn.Module):
    """Pyramid and head."""

    def __init__(self, network: GIN) -> None:
        super().__init__()
        self.part = ExpressionPart(network, candidates=1)

    def forward(
        self, expressions: Tensor, image_index: Tensor, image_sizes: Tensor, *reasoned: Tensor
    ) -> tuple[Tensor, ...]:
        """reasoned: map and attention logits of each level."""
        pyramid = self.part.network.fpn(list(reasoned[::2]))
        return self.part.read(pyramid, expressions, reasoned[1], image_index, image_sizes)[: len(ANSWERS)]


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

"""A network on a GPU compiled and captured for one shape of question, which answers as fast as it can."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import cast
from unittest import mock

import torch
from torch import Tensor, nn

from export.graphs import Graph

WARM_UP = 3  # runs, in which cuDNN chooses its algorithms


def compile_pieces(graph: Graph, example: Mapping[str, Tensor]) -> Graph:
    """The same, its pieces compiled by PyTorch's Inductor for the shapes of an example, which takes a while.

    graph: of a `SideBySide`. example: its inputs on the GPU, by name.
    """
    network = copy.copy(graph.module)
    network._modules = dict(graph.module.named_children())
    seen: dict[nn.Module, tuple[Tensor, ...]] = {}
    hooks = [
        piece.register_forward_hook(lambda piece, inputs, _: seen.update({piece: inputs}))
        for piece in network.children()
    ]
    try:
        graph(example)  # which also computes the network's constants: see `on_device`
    finally:
        for hook in hooks:
            hook.remove()
    for name, piece in network.named_children():
        # Kept as for ONNX: a compiled network would compute them anew and copy them from the host in each run.
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):
            with mock.patch("torch.onnx.is_in_onnx_export", return_value=True):
                exported = torch.export.export(piece, seen[piece])
            compiled = cast(nn.Module, torch.compile(exported.module()))
            compiled(*seen[piece])
        network._modules[name] = compiled
    return dataclasses.replace(graph, module=network)


class Captured:
    """A CUDA graph of a network, for questions of one shape: everything is started at once and nothing is allocated.

    With `torch.backends.cudnn.benchmark` on, the fastest algorithms are chosen before.
    """

    def __init__(self, graph: Graph, example: Mapping[str, Tensor]) -> None:
        """example: the inputs on the GPU, by name."""
        self._network = graph  # whose weights the CUDA graph reads where they lie
        self._inputs = {name: example[name].clone() for name in graph.inputs}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                graph(self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=torch.cuda.Stream(priority=-1)):  # none of the network's own
            self._answers = graph(self._inputs)

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run it. tensors: inputs like the example's, by name, on the GPU or not; pinned ones may be changed only when
        the GPU is done with them. Returns the outputs by name, which the next call overwrites. Does not wait for the
        GPU. Raises ValueError for other shapes or types."""
        for name, place in self._inputs.items():
            given = tensors[name]
            if (given.shape, given.dtype) != (place.shape, place.dtype):
                raise ValueError(
                    f"{name} is {given.dtype} {tuple(given.shape)}; captured for {place.dtype} {tuple(place.shape)}"
                )
        for name, place in self._inputs.items():
            place.copy_(tensors[name], non_blocking=True)
        self.replay()
        return self._answers

    def replay(self) -> None:
        """Run it again on the inputs it has."""
        self._graph.replay()

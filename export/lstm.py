"""An LSTM that exports as one ONNX node with a free word count."""

import copy

import torch
from torch import Tensor, nn

from model.gin import GIN


class OnnxLSTM(nn.Module):
    """Stands in for a one-layer, one-direction, batch-first `nn.LSTM` while exporting.

    `torch.export` unrolls `nn.LSTM` and so freezes the number of words at the traced one; ONNX's LSTM operator
    leaves it free. Its gates come in the order input, output, forget, cell; PyTorch's are input, forget, cell, output.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.width = lstm.hidden_size
        weights = lstm.state_dict()
        self.weight: Tensor
        self.recurrence: Tensor
        self.bias: Tensor
        # ONNX wants a leading axis of directions
        self.register_buffer("weight", self._reorder(weights["weight_ih_l0"])[None])
        self.register_buffer("recurrence", self._reorder(weights["weight_hh_l0"])[None])
        biases = [self._reorder(bias) for bias in (weights["bias_ih_l0"], weights["bias_hh_l0"])]
        self.register_buffer("bias", torch.cat(biases)[None])

    @staticmethod
    def _reorder(gates: Tensor) -> Tensor:
        i, f, c, o = gates.detach().chunk(4)
        return torch.cat((i, o, f, c))

    def forward(self, vectors: Tensor) -> tuple[Tensor, None]:
        """vectors: (N, T, E). Returns the outputs (N, T, width); the state is not kept."""
        N, T, _ = vectors.shape
        outputs = torch.onnx.ops.symbolic(
            "LSTM",
            (vectors.transpose(0, 1), self.weight, self.recurrence, self.bias),
            attrs={"hidden_size": self.width},
            dtype=vectors.dtype,
            shape=(T, 1, N, self.width),
            version=14,
        )
        return outputs.squeeze(1).transpose(0, 1), None


def with_free_word_count(network: GIN) -> GIN:
    """A copy of the network whose expression encoder exports with any number of words."""
    network = copy.deepcopy(network)
    network.expression.add_module("forward_lstm", OnnxLSTM(network.expression.forward_lstm))
    return network

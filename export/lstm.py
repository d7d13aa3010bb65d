"""LSTMs that export with a free word count: `torch.export` unrolls `nn.LSTM` and so freezes it at the traced one."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from model.expression import ExpressionEncoder


class OnnxLSTM(nn.Module):
    """Stands in for a one-layer, one-direction, batch-first `nn.LSTM`: one ONNX node.

    Its gates come in the order input, output, forget, cell; PyTorch's are input, forget, cell, output.
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


class LoopLSTM(nn.Module):
    """Stands in for a one-layer, one-direction, batch-first `nn.LSTM`: a loop in the graph."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.width = lstm.hidden_size
        weights = lstm.state_dict()
        self.weight: Tensor
        self.recurrence: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weights["weight_ih_l0"].T.contiguous())
        self.register_buffer("recurrence", weights["weight_hh_l0"].T.contiguous())
        self.register_buffer("bias", weights["bias_ih_l0"] + weights["bias_hh_l0"])

    def forward(self, vectors: Tensor) -> tuple[Tensor, None]:
        """vectors: (N, T, E). Returns the outputs (N, T, width); the state is not kept."""
        N, T, _ = vectors.shape
        gates = (vectors @ self.weight + self.bias).transpose(0, 1)  # (T, N, 4 * width)
        nothing = vectors.new_zeros(N, self.width)
        times = torch.arange(T, device=vectors.device)

        def goes_on(step: Tensor, *_: Tensor) -> Tensor:
            return step < T

        def next_word(
            step: Tensor, hidden: Tensor, cell: Tensor, outputs: Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            gate = gates.index_select(0, step.view(1)).squeeze(0) + hidden @ self.recurrence
            i, f, c, o = gate.chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * c.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs = torch.where((times == step)[:, None, None], hidden, outputs)
            return step + 1, hidden, cell, outputs

        start = torch.zeros((), dtype=torch.int64, device=vectors.device)
        state = (start, nothing, nothing.clone(), vectors.new_zeros(T, N, self.width))
        return while_loop(goes_on, next_word, state)[3].transpose(0, 1), None


class OneWordLSTM(nn.Module):
    """Stands in for a one-layer, one-direction, batch-first `nn.LSTM` that reads one word: it starts from nothing, so
    there is nothing to forget and nothing recurs."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        weights = lstm.state_dict()
        i, _, c, o = weights["weight_ih_l0"].chunk(4)
        i_bias, _, c_bias, o_bias = (weights["bias_ih_l0"] + weights["bias_hh_l0"]).chunk(4)
        self.gates = nn.Linear(lstm.input_size, 3 * lstm.hidden_size)
        self.gates.weight = nn.Parameter(torch.cat((i, o, c)).detach())
        self.gates.bias = nn.Parameter(torch.cat((i_bias, o_bias, c_bias)).detach())

    def forward(self, vectors: Tensor) -> tuple[Tensor, None]:
        """vectors: (N, 1, E). Returns the outputs (N, 1, width); the state is not kept."""
        i, o, c = self.gates(vectors).chunk(3, dim=2)
        return o.sigmoid() * (i.sigmoid() * c.tanh()).tanh(), None


def with_lstm(module: nn.Module, make: Callable[[nn.LSTM], nn.Module]) -> nn.Module:
    """A copy of a module whose expression encoders read with `make` of their forward LSTM, and the last word with a
    `OneWordLSTM`."""
    module = copy.deepcopy(module).eval()
    for part in module.modules():
        if isinstance(part, ExpressionEncoder):
            part.add_module("forward_lstm", make(part.forward_lstm))
            part.add_module("backward_lstm", OneWordLSTM(part.backward_lstm))
    return module

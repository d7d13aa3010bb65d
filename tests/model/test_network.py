"""Properties of the network that exporting and serving rely on."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from model.checkpoint import Checkpoint
from model.gin import GIN, Grounding


@pytest.fixture(scope="module")
def network(checkpoint: Checkpoint) -> GIN:
    """The small network."""
    return checkpoint.network()


def ask(network: GIN, images: Tensor, rows: list[list[int]], image_index: list[int]) -> Grounding:
    """Ground expressions given as lists of ids."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    with torch.inference_mode():
        return network(images, ids, lengths, torch.tensor(image_index))


def images(count: int, height: int = 64, width: int = 64) -> Tensor:
    """Random images, the same every time."""
    return torch.from_numpy(np.random.default_rng(0).random((count, 3, height, width), dtype=np.float32))


ROWS = [[2], [3, 4], [5] * 25, list(range(2, 12)) * 5, [7, 1, 6]]  # 1, 2, a middle number, 50 and 3 words


def test_same_input_same_answer(network: GIN) -> None:
    """Nothing in the network is drawn at random."""
    first, second = (ask(network, images(2), ROWS, [0, 1, 0, 1, 1]) for _ in range(2))
    assert torch.equal(first.score_logits, second.score_logits)
    assert torch.equal(first.box_deltas, second.box_deltas)


def test_batch_equals_single(network: GIN) -> None:
    """Mixed lengths and images in one batch answer as each alone."""
    index = [0, 1, 1, 0, 1]
    together = ask(network, images(2), ROWS, index)
    for n, (row, image) in enumerate(zip(ROWS, index, strict=True)):
        alone = ask(network, images(2)[image : image + 1], [row], [0])
        torch.testing.assert_close(together.score_logits[n], alone.score_logits[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.box_deltas[n], alone.box_deltas[0], atol=1e-5, rtol=1e-5)
        for many, one in zip(together.attention_logits, alone.attention_logits, strict=True):
            torch.testing.assert_close(many[n], one[0], atol=1e-5, rtol=1e-5)


def test_padding_does_not_matter(network: GIN) -> None:
    """What stands after the last word is never read."""
    ids = torch.tensor([[2, 3, 0, 0], [4, 5, 6, 7]])
    other = torch.tensor([[2, 3, 9, 8], [4, 5, 6, 7]])
    lengths = torch.tensor([2, 4])
    assert torch.equal(network.encode_expression(ids, lengths), network.encode_expression(other, lengths))


def test_language_and_image_matter(network: GIN) -> None:
    """Another expression, and another image, change the scores."""
    scores = ask(network, images(2), [[2, 3], [4, 5], [2, 3]], [0, 0, 1]).score_logits
    assert (scores[0] - scores[1]).abs().max() > 1e-3
    assert (scores[0] - scores[2]).abs().max() > 1e-3


def test_vector_is_the_packed_lstms(network: GIN) -> None:
    """The expression vector is PyTorch's packed bidirectional LSTM at the last valid word."""
    encoder = network.expression
    width, hidden = encoder.embedding.embedding_dim, encoder.forward_lstm.hidden_size
    both = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
    forward = encoder.forward_lstm.state_dict()
    backward = {f"{name}_reverse": weight for name, weight in encoder.backward_lstm.state_dict().items()}
    both.load_state_dict(forward | backward)
    vectors, lengths = torch.randn(4, 9, width), torch.tensor([1, 9, 5, 2])
    with torch.inference_mode():
        packed, _ = both(pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False))
        outputs, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
        expected = outputs[torch.arange(4), lengths - 1]
        torch.testing.assert_close(encoder.encode_words(vectors, lengths), expected, atol=1e-6, rtol=1e-6)


def test_expressions_are_read_in_single_precision(network: GIN) -> None:
    """Autocast included: not every processor has LSTMs in half precision."""
    asked = torch.tensor([[2, 3]]), torch.tensor([2])
    with torch.inference_mode():
        expected = network.encode_expression(*asked)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network.encode_expression(*asked), expected)


def test_maps_need_not_be_square(network: GIN) -> None:
    """Any multiple of 32 goes, each side on its own."""
    grounding = ask(network, images(1, 64, 96), [[2, 3]], [0])
    assert [tuple(logits.shape[1:]) for logits in grounding.attention_logits] == [(8, 12), (4, 6), (2, 3)]
    cells = 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1 + 1
    assert grounding.score_logits.shape == (1, cells * 9)
    assert grounding.anchors.shape == (cells * 9, 4)


def test_every_parameter_learns(checkpoint: Checkpoint) -> None:
    """Every parameter gets a gradient; only the backward LSTM's recurrence, which starts from zero, gets none."""
    network = checkpoint.network().train()
    ids, lengths = torch.randint(2, 10, (4, 5)), torch.tensor([5, 3, 1, 4])
    grounding = network(images(4), ids, lengths)
    (grounding.score_logits.square().mean() + grounding.box_deltas.square().mean()).backward()
    still = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert still == {"expression.backward_lstm.weight_hh_l0"}

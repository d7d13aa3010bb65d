"""The expression encoder: word ids to one vector."""

import torch
from torch import Tensor, nn

from model.words import PADDING


class ExpressionEncoder(nn.Module):
    """Word vectors read in both directions; the vector is what stands at the last word.

    There the forward LSTM has read everything and the backward LSTM only the last word: the authors' networks were
    trained so, hence the backward one is run on that word alone. Both start from zero.
    """

    def __init__(self, vocabulary_size: int, word_width: int, language_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, word_width, padding_idx=PADDING)
        self.forward_lstm = nn.LSTM(word_width, language_width // 2, batch_first=True)
        self.backward_lstm = nn.LSTM(word_width, language_width // 2, batch_first=True)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids: (N, T) int64, padded at the end. lengths: (N,) int64, 1..T. Returns (N, language_width)."""
        return self.encode_words(self.embedding(ids), lengths)

    def encode_words(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """vectors: (N, T, word_width), anything after `lengths`. Returns (N, language_width).

        Autocast leaves it alone: it is little work, and not every processor has LSTMs in half precision.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return self._read(vectors, lengths)

    def _read(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        last = (lengths - 1)[:, None, None]  # (N, 1, 1)
        read, _ = self.forward_lstm(vectors)  # (N, T, D/2); padding comes after the last word and cannot reach it
        forward = read.gather(1, last.expand(-1, 1, read.shape[2]))  # (N, 1, D/2)
        last_word = vectors.gather(1, last.expand(-1, 1, vectors.shape[2]))  # (N, 1, E)
        backward, _ = self.backward_lstm(last_word)  # (N, 1, D/2)
        return torch.cat((forward, backward), dim=2).squeeze(1)

"""Global Attentive Reasoning: collect what the expression asks for from everywhere, diffuse it to where it matters."""

import math

from torch import Tensor, nn
from torch.nn import functional as F


class GlobalAttentiveReasoning(nn.Module):
    """GARAN at one level: attention from the expression to all positions and back.

    transposed_diffusion: see `ModelConfig`.
    """

    def __init__(
        self, map_width: int, language_width: int, heads: int, dropout: float, transposed_diffusion: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.transposed_diffusion = transposed_diffusion
        self.query = nn.Linear(language_width, map_width)
        self.collect_key = nn.Conv2d(map_width, map_width, kernel_size=1)
        self.diffuse_key = nn.Conv2d(map_width, map_width, kernel_size=1)
        self.value = nn.Conv2d(map_width, map_width, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm2d(map_width)

    def forward(self, features: Tensor, expressions: Tensor) -> tuple[Tensor, Tensor]:
        """features: (N, C, h, w). expressions: (N, D).

        Returns the reasoned map (N, C, h, w) and the collect logits, mean over heads, (N, h, w): where it looked.
        """
        N, C, h, w = features.shape
        G, d = self.heads, C // self.heads  # heads, channels of a head
        query = self.query(expressions).view(N, G, 1, d) / math.sqrt(d)
        collect_key = self.collect_key(features).view(N, G, d, h * w)
        diffuse_key = self.diffuse_key(features).view(N, G, d, h * w)
        value = self.value(features).view(N, G, d, h * w)

        logits = query @ collect_key  # (N, G, 1, hw)
        collect = self.dropout(logits.softmax(dim=-1))
        collected = value @ collect.transpose(2, 3)  # (N, G, d, 1)
        diffuse = self.dropout((query @ diffuse_key).sigmoid())  # (N, G, 1, hw)
        diffused = (collected * diffuse).view(N, C, h, w)
        if self.transposed_diffusion:
            diffused = diffused.transpose(2, 3).reshape(N, C, h, w)
        reasoned = F.leaky_relu(self.norm(diffused + features), 0.1)
        return reasoned, logits.mean(dim=1).view(N, h, w)

"""The configuration that travels with the weights and that every later stage reads."""

import dataclasses
from dataclasses import dataclass
from typing import Any

STRIDES = (8, 16, 32)  # of the three backbone maps C3, C4, C5, and of the three attention maps


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a GIN. The defaults are the authors' network with ResNet-50 at 320 pixels.

    backbone: a torchvision classification network listed in `model.backbone`. image_size: side of the square input
    in pixels, a multiple of 32. resize_filter: how pictures are brought to that size. max_words: longest expression.
    word_width, language_width: channels of a word vector and of an expression vector. branch_width, map_width:
    channels inside and after an AFS branch. attention_heads, dropout: of GARAN. transposed_diffusion: repeat the
    authors' exchange of rows and columns in the diffused map, which their checkpoints depend on.
    pyramid_width, pyramid_levels: channels and levels of the FPN, 3 for stride 8 up to 8 for the global average.
    head_width, head_layers: channels and number of the head's hidden convolutions. anchor_scales: side of a square
    anchor in map cells. anchor_ratios: height over width.
    """

    backbone: str = "resnet50"
    image_size: int = 320
    resize_filter: str = "bilinear"
    max_words: int = 50
    word_width: int = 300
    language_width: int = 256
    branch_width: int = 256
    map_width: int = 512
    attention_heads: int = 2
    dropout: float = 0.1
    transposed_diffusion: bool = False
    pyramid_width: int = 256
    pyramid_levels: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    head_width: int = 256
    head_layers: int = 5
    anchor_scales: tuple[float, ...] = (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % 32:
            raise ValueError(f"image_size is {self.image_size}; it must be a multiple of 32")
        if self.language_width % 2:
            raise ValueError(f"language_width is {self.language_width}; it must be even (two reading directions)")
        if self.map_width % self.attention_heads:
            raise ValueError(f"map_width {self.map_width} is not a multiple of attention_heads {self.attention_heads}")
        if not set(self.pyramid_levels) <= set(range(3, 9)) or not self.pyramid_levels:
            raise ValueError(f"pyramid_levels are {self.pyramid_levels}; known levels are 3 to 8")

    @property
    def anchors_per_cell(self) -> int:
        """Anchors at each position of each level."""
        return len(self.anchor_scales) * len(self.anchor_ratios)

    def to_dict(self) -> dict[str, Any]:
        """Plain data (numbers, strings, lists) for a checkpoint."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`. Raises ValueError listing unknown names."""
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown model configuration: {', '.join(sorted(unknown))}")
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)

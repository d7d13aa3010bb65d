"""The configuration that travels with the weights and that every later stage reads."""

import dataclasses
from dataclasses import dataclass
from typing import Any

STRIDES = (8, 16, 32)  # of the three backbone maps C3, C4, C5, and of the three attention maps
SSD = "ssd_vgg16"  # the one backbone that makes the pyramid itself
SMALLEST_SSD = 268  # pixels; below, nothing is left for the last of its six maps
BLIND = ("none", "language", "image", "both")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and parts of a GIN. The defaults are the authors' network with ResNet-50 at 320 pixels.

    backbone: a torchvision classification network listed in `model.backbone`, or "ssd_vgg16". image_size: side of the
    square input in pixels; a multiple of 32 where AFS or GARAN is on. resize_filter: how pictures are brought to that
    size. max_words: longest expression. word_width, language_width: channels of a word vector and of an expression
    vector. branch_width: channels inside an AFS branch. map_width: channels of the three maps between backbone and FPN.
    attention_heads, dropout: of GARAN. transposed_diffusion: repeat the authors' exchange of rows and columns in the
    diffused map, which their checkpoints depend on. pyramid_width, pyramid_levels: channels and levels of the pyramid,
    3 for stride 8 up to 8 for the global average (the last map, with ssd_vgg16). head_width, head_layers: channels and
    number of the head's hidden convolutions. anchor_scales: side of a square anchor in map cells. anchor_ratios: height
    over width.

    afs, garan: whether the network has Adaptive Feature Selection and Global Attentive Reasoning. Without both it is
    ZSGNet (Sadhu et al., 2019): the FPN stands on C3 to C5 themselves. ssd_vgg16 goes with neither. Without AFS alone,
    a 1x1 convolution per level brings C3 to C5 to map_width for GARAN. blind: what the answer may not depend on. The
    head sees the map, the expression and the position if "none", the map alone if "language", the expression alone if
    "image", the position alone if "both"; a network blind to language gives AFS and GARAN zeros for the expression.
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
    afs: bool = True
    garan: bool = True
    blind: str = "none"

    def __post_init__(self) -> None:
        self._check_parts()
        if self.language_width % 2:
            raise ValueError(f"language_width is {self.language_width}; it must be even (two reading directions)")
        if self.map_width % self.attention_heads:
            raise ValueError(f"map_width {self.map_width} is not a multiple of attention_heads {self.attention_heads}")
        if not set(self.pyramid_levels) <= set(range(3, 9)) or not self.pyramid_levels:
            raise ValueError(f"pyramid_levels are {self.pyramid_levels}; known levels are 3 to 8")

    def _check_parts(self) -> None:
        if self.blind not in BLIND:
            raise ValueError(f"blind is {self.blind!r}; known: {', '.join(BLIND)}")
        wanted = [name for name in ("afs", "garan") if getattr(self, name)]
        if self.backbone == SSD and wanted:
            raise ValueError(f"backbone {SSD} makes the pyramid itself and goes without {' and '.join(wanted)}")
        if wanted and self.image_size % 32:
            raise ValueError(
                f"image_size is {self.image_size}; it must be a multiple of 32 with {' and '.join(wanted)}"
            )
        smallest = SMALLEST_SSD if self.backbone == SSD else 32
        if self.image_size < smallest:
            raise ValueError(f"image_size is {self.image_size}; with backbone {self.backbone} at least {smallest} goes")

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

"""The configuration that travels with the weights and that every later stage reads."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from model.picture import RESIZE_FILTERS

STRIDES = (8, 16, 32)  # of the three backbone maps C3, C4, C5, and of the three attention maps
NODES = {  # of torchvision's networks, whose outputs have these strides
    "resnet18": ("layer2", "layer3", "layer4"),
    "resnet34": ("layer2", "layer3", "layer4"),
    "resnet50": ("layer2", "layer3", "layer4"),
    "resnet101": ("layer2", "layer3", "layer4"),
    "shufflenet_v2_x0_5": ("stage2", "stage3", "stage4"),
    "shufflenet_v2_x1_0": ("stage2", "stage3", "stage4"),
}
SSD = "ssd_vgg16"  # the one backbone that makes the pyramid itself
SMALLEST_SSD = 268  # pixels; below, nothing is left for the last of its six maps
BLIND = ("none", "language", "image", "both")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and parts of a GIN. The defaults are the authors' network with ResNet-50 at 320 pixels.

    Without `afs` and `garan` it is ZSGNet (Sadhu et al., 2019): the FPN stands on C3 to C5 themselves. Without AFS
    alone, a 1x1 convolution per level brings C3 to C5 to `map_width` for GARAN. A network blind to language gives AFS
    and GARAN zeros for the expression.
    """

    backbone: str = "resnet50"
    """a torchvision network listed in model.config, or "ssd_vgg16", which goes without AFS and GARAN"""
    image_size: int = 320
    """side of the square input in pixels; a multiple of 32 with AFS or GARAN"""
    resize_filter: str = "bilinear"
    """how pictures are brought to that size: "nearest", "bilinear" or "bicubic"."""
    max_words: int = 50
    """longest expression"""
    word_width: int = 300
    """channels of a word vector"""
    language_width: int = 256
    """channels of an expression vector"""
    branch_width: int = 256
    """channels inside an AFS branch"""
    map_width: int = 512
    """channels of the three maps between backbone and FPN"""
    attention_heads: int = 2
    """of GARAN"""
    dropout: float = 0.1
    """of GARAN's two attentions in training"""
    transposed_diffusion: bool = False
    """repeat the authors' exchange of rows and columns in the diffused map, which their checkpoints depend on"""
    pyramid_width: int = 256
    """channels of the pyramid"""
    pyramid_levels: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """levels of the pyramid: 3 for stride 8 up to 8 for the global average (the last map, with ssd_vgg16)"""
    head_width: int = 256
    """channels of the head's hidden convolutions"""
    head_layers: int = 5
    """number of the head's hidden convolutions"""
    anchor_scales: tuple[float, ...] = (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))
    """side of a square anchor in map cells"""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """height of an anchor over its width"""
    afs: bool = True
    """whether the network has Adaptive Feature Selection"""
    garan: bool = True
    """whether the network has Global Attentive Reasoning"""
    blind: str = "none"
    """what the head does not see: "none", "language" (nor the position), "image" (nor the position) or "both" (the
    position alone)"""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not (isinstance(value, int) and not isinstance(value, bool) and value > 0):
                raise ValueError(f"{field.name} is {value!r}; it must be a positive integer")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be 0 or more and below 1")
        self._check_anchors()
        self._check_parts()
        if self.language_width % 2:
            raise ValueError(f"language_width is {self.language_width}; it must be even (two reading directions)")
        if self.map_width % self.attention_heads:
            raise ValueError(f"map_width {self.map_width} is not a multiple of attention_heads {self.attention_heads}")
        if not set(self.pyramid_levels) <= set(range(3, 9)) or not self.pyramid_levels:
            raise ValueError(f"pyramid_levels are {self.pyramid_levels}; known levels are 3 to 8")
        if list(self.pyramid_levels) != sorted(set(self.pyramid_levels)):
            raise ValueError(f"pyramid_levels are {self.pyramid_levels}; they must ascend")

    def _check_anchors(self) -> None:
        for name in ("anchor_scales", "anchor_ratios"):
            values = getattr(self, name)
            numbers = isinstance(values, tuple) and all(type(value) in (int, float) for value in values)
            if not numbers or not values or not all(value > 0 and math.isfinite(value) for value in values):
                raise ValueError(f"{name} are {values!r}; they must be positive numbers")

    def _check_parts(self) -> None:
        if self.backbone not in (*NODES, SSD):
            raise ValueError(f"backbone is {self.backbone!r}; known: {', '.join((*NODES, SSD))}")
        if self.resize_filter not in RESIZE_FILTERS:
            raise ValueError(f"resize_filter is {self.resize_filter!r}; known: {', '.join(RESIZE_FILTERS)}")
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
            raise ValueError(f"image_size is {self.image_size}; backbone {self.backbone} needs at least {smallest}")

    @property
    def anchors_per_cell(self) -> int:
        """Anchors at each position of each level."""
        return len(self.anchor_scales) * len(self.anchor_ratios)

    def differences(self, other: "ModelConfig") -> str:
        """In what another configuration differs, seen from there: `map_width (32 there, 64 here), ...`."""
        pairs = zip(self.to_dict().items(), other.to_dict().values(), strict=True)
        return ", ".join(f"{name} ({there} there, {here} here)" for (name, there), here in pairs if there != here)

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

"""The original authors' networks: what their tensors are called, and which configuration of ours is each."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from model.config import SSD, ModelConfig
from model.gin import GIN

EMBEDDING = "expression.embedding.weight"  # ours alone: the authors take word vectors from outside

# Our names, theirs. First match counts; what matches none has the same name in both.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.body\.(.*)", r"backbone.encoder.\1"),
    (r"backbone\.project\.0\.(.*)", r"backbone.encoder.fproj1.\1"),
    (r"backbone\.project\.1\.(.*)", r"backbone.encoder.fproj2.\1"),
    (r"backbone\.project\.2\.(.*)", r"backbone.encoder.fproj3.\1"),
    (r"backbone\.((vgg|extras)\..*)", r"backbone.encoder.\1"),
    (r"afs\.(\d)\.branches\.(\d)\.(.*)", r"backbone.afs_stage\1.afs_modules.\2.\3"),
    (r"afs\.(\d)\.weights\.(.*)", r"backbone.afs_stage\1.afs_weights.\2"),
    (r"garan\.(\d)\.query\.(.*)", r"backbone.garan_stage\1.w_qs.\2"),
    (r"garan\.(\d)\.collect_key\.(.*)", r"backbone.garan_stage\1.w_kc.\2"),
    (r"garan\.(\d)\.diffuse_key\.(.*)", r"backbone.garan_stage\1.w_kd.\2"),
    (r"garan\.(\d)\.value\.(.*)", r"backbone.garan_stage\1.w_vs.\2"),
    (r"garan\.(\d)\.norm\.(.*)", r"backbone.garan_stage\1.layer_norm.\2"),
    (r"fpn\.lateral\.0\.(.*)", r"backbone.fpn.P3_1.\1"),
    (r"fpn\.lateral\.1\.(.*)", r"backbone.fpn.P4_1.\1"),
    (r"fpn\.lateral\.2\.(.*)", r"backbone.fpn.P5_1.\1"),
    (r"fpn\.smooth\.0\.(.*)", r"backbone.fpn.P3_2.\1"),
    (r"fpn\.smooth\.1\.(.*)", r"backbone.fpn.P4_2.\1"),
    (r"fpn\.smooth\.2\.(.*)", r"backbone.fpn.P5_2.\1"),
    (r"fpn\.p6\.(.*)", r"backbone.fpn.P6.\1"),
    (r"fpn\.p7\.(.*)", r"backbone.fpn.P7_2.\1"),
    (r"head\.hidden\.(\d)\.(.*)", r"att_reg_box.\1.0.\2"),
    (r"head\.output\.(.*)", r"att_reg_box.5.\1"),
    (r"expression\.backward_lstm\.(.*)", r"lstm.\1_reverse"),
    (r"expression\.forward_lstm\.(.*)", r"lstm.\1"),
)


@dataclass(frozen=True)
class Architecture:
    """One of the authors' networks.

    config: ours at its published input size. coarse_levels: the pyramid's levels at sizes for which `is_coarse`.
    unused: pattern of tensors that their checkpoints hold and their network never reads.
    """

    title: str
    config: ModelConfig
    is_coarse: Callable[[int], bool]
    coarse_levels: tuple[int, ...]
    unused: str

    def at_size(self, image_size: int) -> ModelConfig:
        """The configuration at an input size in pixels."""
        return replace(self.config, image_size=image_size, pyramid_levels=self.levels_at(image_size))

    def levels_at(self, image_size: int) -> tuple[int, ...]:
        """The pyramid's levels at an input size in pixels."""
        return self.coarse_levels if self.is_coarse(image_size) else self.config.pyramid_levels

    def names(self) -> dict[str, str]:
        """The authors' name of each of our tensors, by our name; without the embedding."""
        return {name: _original_name(name) for name in self._tensors if name != EMBEDDING}

    def problems(self, theirs: dict[str, Tensor]) -> list[str]:
        """What is missing, extra and misshapen, by the authors' names."""
        expected = {original: list(self._tensors[name].shape) for name, original in self.names().items()}
        found = [f"missing: {name}" for name in expected if name not in theirs]
        found += [f"extra: {name}" for name in theirs if name not in expected and not re.fullmatch(self.unused, name)]
        for name in expected.keys() & theirs.keys():
            if list(theirs[name].shape) != expected[name]:
                found.append(f"misshapen: {name} is {list(theirs[name].shape)}, expected {expected[name]}")
        return sorted(found)

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        with torch.device("meta"):  # names and shapes alone
            return GIN(self.config, vocabulary_size=2).state_dict()


# Their pinned Pillow (before 7.0) resizes with nearest neighbours, which their checkpoints were trained on.
_GIN = ModelConfig(transposed_diffusion=True, resize_filter="nearest")
_ZSGNET = ModelConfig(image_size=300, afs=False, garan=False, resize_filter="nearest")
_CLASSIFIER = r"backbone\.encoder\.fc\..*"  # came with the ResNet
_DETECTOR = r"backbone\.encoder\.(loc|conf)\..*"  # came with SSD

ARCHITECTURES = (
    Architecture("GIN with ResNet-50", _GIN, lambda size: size in (600, 608), (4, 5, 6, 7), _CLASSIFIER),
    Architecture("ZSGNet with ResNet-50", _ZSGNET, lambda size: size == 600, (4, 5, 6, 7), _CLASSIFIER),
    Architecture(
        "ZSGNet with SSD-VGG16", replace(_ZSGNET, backbone=SSD), lambda size: size >= 600, (4, 5, 6, 7, 8), _DETECTOR
    ),
)


def recognise(theirs: dict[str, Tensor]) -> Architecture:
    """The architecture that shares the most tensor names with theirs, relative to what either has."""

    def likeness(architecture: Architecture) -> float:
        names = set(architecture.names().values())
        return len(names & theirs.keys()) / len(names | theirs.keys())

    return max(ARCHITECTURES, key=likeness)


def architecture_of(config: ModelConfig) -> Architecture | None:
    """The authors' network that a configuration is, whatever its input size and anchors; None if it is none of them."""
    free = ("image_size", "pyramid_levels", "anchor_scales", "anchor_ratios")

    def fixed(one: ModelConfig) -> dict[str, Any]:
        return {name: value for name, value in one.to_dict().items() if name not in free}

    return next((each for each in ARCHITECTURES if fixed(each.config) == fixed(config)), None)


def resized(config: ModelConfig, image_size: int) -> ModelConfig:
    """A configuration at another input size in pixels: with the levels that the authors published for it, where it is
    one of their networks with those of its present size, else with its own."""
    architecture, levels = architecture_of(config), config.pyramid_levels
    if architecture is not None and levels == architecture.levels_at(config.image_size):
        levels = architecture.levels_at(image_size)
    return replace(config, image_size=image_size, pyramid_levels=levels)


def _original_name(name: str) -> str:
    for pattern, theirs in _NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, theirs, name)
    return name

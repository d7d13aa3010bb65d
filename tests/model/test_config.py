"""The configuration: contradictions are refused by name, and older checkpoints' dictionaries load."""

from typing import Any

import pytest

from model.config import ModelConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "resnet5"}, "resnet50.*ssd_vgg16"),
        ({"resize_filter": "lanczos"}, "resize_filter is 'lanczos'; known: nearest, bilinear, bicubic"),
        ({"backbone": "ssd_vgg16"}, "ssd_vgg16 .*afs and garan"),
        ({"backbone": "ssd_vgg16", "afs": False}, "ssd_vgg16 .*garan"),
        ({"backbone": "ssd_vgg16", "afs": False, "garan": False, "image_size": 267}, "image_size is 267.*268"),
        ({"image_size": 300}, "image_size is 300.*multiple of 32 with afs and garan"),
        ({"image_size": 300, "garan": False}, "multiple of 32 with afs$"),
        ({"image_size": 300, "afs": False}, "multiple of 32 with garan$"),
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 31, "afs": False, "garan": False}, "image_size is 31"),
        ({"blind": "deaf"}, "none, language, image, both"),
        ({"pyramid_levels": (2, 3)}, "pyramid_levels"),
        ({"pyramid_levels": (5, 4, 3)}, r"pyramid_levels are \(5, 4, 3\); they must ascend"),
        ({"pyramid_levels": (3, 3)}, r"pyramid_levels are \(3, 3\); they must ascend"),
        ({"attention_heads": 0}, "attention_heads is 0; it must be a positive integer"),
        ({"head_layers": -1}, "head_layers is -1; it must be a positive integer"),
        ({"max_words": 0}, "max_words is 0; it must be a positive integer"),
        ({"max_words": True}, "max_words is True; it must be a positive integer"),
        ({"anchor_ratios": (0.0,)}, r"anchor_ratios are \(0.0,\); they must be positive numbers"),
        ({"anchor_ratios": (1.0, float("inf"))}, "anchor_ratios"),
        ({"anchor_scales": ("a",)}, r"anchor_scales are \('a',\)"),
        ({"anchor_scales": (True,)}, "anchor_scales"),
        ({"anchor_scales": (float("nan"),)}, "anchor_scales"),
        ({"anchor_scales": ()}, "anchor_scales"),
        ({"anchor_scales": 4.0}, "anchor_scales are 4.0"),
        ({"dropout": 2.0}, "dropout is 2.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"language_width": 2.0}, "language_width is 2.0; it must be a positive integer"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    """Settings that cannot go together are named in one line."""
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)


@pytest.mark.parametrize("size", [32, 64, 300, 333, 600])
def test_zsgnet_takes_any_size(size: int) -> None:
    """Without AFS and GARAN the input need not be a multiple of 32."""
    assert ModelConfig(image_size=size, afs=False, garan=False).image_size == size


def test_older_dictionaries_load() -> None:
    """A dictionary from before there were variants means the network of then."""
    variants = ("afs", "garan", "blind")
    older = {name: value for name, value in ModelConfig().to_dict().items() if name not in variants}
    assert ModelConfig.from_dict(older) == ModelConfig()
    assert (ModelConfig().afs, ModelConfig().garan, ModelConfig().blind) == (True, True, "none")


def test_round_trip() -> None:
    """A variant survives being written and read."""
    config = ModelConfig(backbone="ssd_vgg16", image_size=300, afs=False, garan=False, blind="image")
    assert ModelConfig.from_dict(config.to_dict()) == config

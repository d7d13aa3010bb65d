"""What a run begins with, and what of it is trained."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from model.checkpoint import Checkpoint, InvalidCheckpoint
from model.gin import GIN
from model.words import Vocabulary
from train.config import DataConfig, OptimConfig, TrainConfig
from train.network import build_network
from train.rewrite import AbsorbedKeys, EarlyBranch, SplitHead


def build(checkpoint: Checkpoint, known: Checkpoint | None = None, **settings: Any) -> GIN:
    """A network of the small configuration with changed settings; `model` changes fields of the network, `vocabulary`
    and `vectors` are those of the data."""
    model = dataclasses.replace(checkpoint.config, pyramid_levels=(3, 4, 5), **settings.pop("model", {}))
    vocabulary = settings.pop("vocabulary", checkpoint.vocabulary)
    data: Any = SimpleNamespace(vocabulary=vocabulary, vectors=settings.pop("vectors", None))
    return build_network(TrainConfig(model=model, **settings), data, known, torch.device("cpu"))


def frozen(network: GIN) -> set[str]:
    """Names of the parameters that are not trained."""
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


def test_everything_is_trained(checkpoint: Checkpoint) -> None:
    """Every parameter that the loss depends on, which is all of them."""
    assert frozen(build(checkpoint)) == set()


def test_a_cpu_trains_less(checkpoint: Checkpoint) -> None:
    """The rewritten network, whose weights are those of the published one."""
    network = build(checkpoint)
    kinds = [type(module) for module in network.modules()]
    assert [kinds.count(kind) for kind in (EarlyBranch, AbsorbedKeys, SplitHead)] == [3, 3, 1]
    GIN(network.config, len(checkpoint.vocabulary)).load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ({"blind": "image"}, ("fpn", "garan")),  # the attention loss sees the rest
        ({"blind": "language"}, ("expression",)),
        ({"garan": False, "afs": False, "blind": "both"}, ("backbone", "fpn", "expression")),
    ],
)
def test_what_the_loss_does_not_see(checkpoint: Checkpoint, model: dict[str, Any], parts: tuple[str, ...]) -> None:
    """A blind network's unseen parts are not trained, so that no process waits for their gradients."""
    names = frozen(build(checkpoint, model=model))
    assert {name.split(".")[0] for name in names} <= set(parts)
    assert any(name.startswith(parts[0]) for name in names)


def test_what_stays(checkpoint: Checkpoint) -> None:
    """Vectors from a file, a frozen backbone, frozen norms."""
    vectors = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    network = build(checkpoint, data=DataConfig(word_vectors="glove.txt"), vectors=vectors)
    assert frozen(network) == {"expression.embedding.weight"}
    np.testing.assert_array_equal(network.expression.embedding.weight[2:5].detach(), vectors)
    names = frozen(build(checkpoint, optim=OptimConfig(backbone_lr=0)))
    assert names == {f"backbone.{name}" for name, _ in network.backbone.named_parameters()}
    names = frozen(build(checkpoint, optim=OptimConfig(freeze_norm=True)))
    assert names
    assert all(network.get_parameter(name).ndim == 1 and name.startswith("backbone.") for name in names)


def test_backbone_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """ImageNet's from a file, and another network's refused."""
    weights = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(weights, tmp_path / "backbone.pth")
    network = build(checkpoint, backbone_weights=str(tmp_path / "backbone.pth"))
    assert torch.equal(network.backbone.state_dict()["body.layer2.0.conv1.weight"], weights["layer2.0.conv1.weight"])
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InvalidCheckpoint, match="missing"):
        build(checkpoint, backbone_weights=str(tmp_path / "other.pth"))


def test_new_words(checkpoint: Checkpoint) -> None:
    """Words that the checkpoint lacks get vectors of their own; the others keep theirs."""
    vocabulary = checkpoint.vocabulary.extended(Vocabulary(["red", "mug"]))
    assert vocabulary.words == (*checkpoint.vocabulary.words, "mug")
    network = build(checkpoint, known=checkpoint, vocabulary=vocabulary)
    vectors = network.expression.embedding.weight.detach()
    assert torch.equal(vectors[:-1], checkpoint.weights["expression.embedding.weight"])
    assert vectors[-1].any()


def test_another_size_starts_from_a_checkpoint(checkpoint: Checkpoint) -> None:
    """The weights are the checkpoint's at any input size; a network of another kind is refused by field and values."""
    network = build(checkpoint, known=checkpoint, model={"image_size": 96})
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, checkpoint.weights[name]), name
    with pytest.raises(ValueError, match=r"head_width \(16 there, 32 here\)"):
        build(checkpoint, known=checkpoint, model={"head_width": 32})

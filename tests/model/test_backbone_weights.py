"""A backbone's first weights: from files of torchvision's networks, and clear refusals."""

import dataclasses
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from model.backbone_weights import load_backbone_weights
from model.checkpoint import Checkpoint, InvalidCheckpoint
from model.config import ModelConfig
from model.gin import GIN


def small_network(checkpoint: Checkpoint, backbone: str) -> GIN:
    """A GIN with another backbone, small behind it."""
    return GIN(dataclasses.replace(checkpoint.config, backbone=backbone), len(checkpoint.vocabulary))


@pytest.fixture(scope="module")
def ssd() -> GIN:
    """A ZSGNet with SSD-VGG16."""
    return GIN(ModelConfig(backbone="ssd_vgg16", image_size=300, afs=False, garan=False), vocabulary_size=2)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torchvision_file(checkpoint: Checkpoint, tmp_path: Path, backbone: str, prefix: str) -> None:
    """With the file's weights the backbone's last map is what torchvision's own network computes before its pooling."""
    torch.manual_seed(1)
    whole = torchvision.models.get_model(backbone, weights=None).eval()
    torch.save({f"{prefix}{name}": weight for name, weight in whole.state_dict().items()}, tmp_path / "weights.pth")
    network = small_network(checkpoint, backbone).eval()
    load_backbone_weights(network, tmp_path / "weights.pth")
    seen: list[Tensor] = []
    last = whole.stage4 if "shuffle" in backbone else whole.layer4
    last.register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        whole(images)
        torch.testing.assert_close(network.backbone(images)[2], seen[0])


def test_files_older_than_the_counters(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A file without the norms' counters is whole all the same."""
    state = torchvision.models.get_model("resnet18", weights=None).state_dict()
    torch.save({name: v for name, v in state.items() if "num_batches_tracked" not in name}, tmp_path / "old.pth")
    network = small_network(checkpoint, "resnet18")
    load_backbone_weights(network, tmp_path / "old.pth")
    assert torch.equal(network.backbone.state_dict()["body.conv1.weight"], state["conv1.weight"])


def test_vgg16_becomes_ssd(ssd: GIN, tmp_path: Path) -> None:
    """VGG16's convolutions are taken as they are, its linear layers thinned out to every fourth channel."""
    torch.manual_seed(1)
    whole = torchvision.models.vgg16(weights=None, init_weights=False).state_dict()
    torch.save(whole, tmp_path / "vgg16.pth")
    load_backbone_weights(ssd, tmp_path / "vgg16.pth")
    layers = ssd.backbone.state_dict()
    assert torch.equal(layers["vgg.28.weight"], whole["features.28.weight"])
    assert layers["vgg.31.weight"].shape == (1024, 512, 3, 3)
    assert layers["vgg.31.weight"][5, 7, 1, 2] == whole["classifier.0.weight"][4 * 5, 7 * 49 + 3 * 7 + 6]
    assert layers["vgg.33.weight"][5, 7, 0, 0] == whole["classifier.3.weight"][4 * 5, 4 * 7]
    assert torch.equal(layers["vgg.33.bias"], whole["classifier.3.bias"][::4])


def test_reduced_vgg16(ssd: GIN, tmp_path: Path) -> None:
    """The file that the authors begin with is named as SSD's layers are; the extra layers stay as they were."""
    torch.manual_seed(2)
    vgg, extras = ssd.backbone.get_submodule("vgg"), ssd.backbone.get_submodule("extras")
    reduced = {name: torch.randn_like(weight) for name, weight in vgg.state_dict().items()}
    kept = {name: weight.clone() for name, weight in extras.state_dict().items()}
    torch.save(reduced, tmp_path / "vgg16_reducedfc.pth")
    load_backbone_weights(ssd, tmp_path / "vgg16_reducedfc.pth")
    assert all(torch.equal(vgg.state_dict()[name], weight) for name, weight in reduced.items())
    assert all(torch.equal(extras.state_dict()[name], weight) for name, weight in kept.items())


def test_wrong_tensors_are_listed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Every missing and misshapen tensor is named at once, and no weight changes."""
    state = torchvision.models.get_model("resnet18", weights=None).state_dict()
    del state["conv1.weight"]
    state["layer1.0.bn1.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "wrong.pth")
    network = small_network(checkpoint, "resnet18")
    before = {name: weight.clone() for name, weight in network.backbone.state_dict().items()}
    with pytest.raises(InvalidCheckpoint, match="wrong.pth.*resnet18") as caught:
        load_backbone_weights(network, tmp_path / "wrong.pth")
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "misshapen: layer1.0.bn1.weight is [3], expected [64]",
        "missing: conv1.weight",
    ]
    assert all(torch.equal(network.backbone.state_dict()[name], weight) for name, weight in before.items())


def test_vgg16_without_classifier(ssd: GIN, tmp_path: Path) -> None:
    """VGG16's convolutions alone, or with a classifier of another size, are not enough."""
    whole = torchvision.models.vgg16(weights=None, init_weights=False).state_dict()
    features = {name: weight for name, weight in whole.items() if name.startswith("features")}
    torch.save(features | {"classifier.0.bias": torch.zeros(4)}, tmp_path / "features.pth")
    with pytest.raises(InvalidCheckpoint, match=r"(?s)misshapen: 31.bias is \[1\].*missing: 31.weight"):
        load_backbone_weights(ssd, tmp_path / "features.pth")


@pytest.mark.parametrize("write", [lambda path: path.write_text("hello"), lambda path: torch.save([1], path)])
def test_not_weights(checkpoint: Checkpoint, tmp_path: Path, write: Callable[[Path], object]) -> None:
    """A text file and a list are refused by name; so is a path where nothing is."""
    write(tmp_path / "text.pth")
    with pytest.raises(InvalidCheckpoint, match="text.pth"):
        load_backbone_weights(checkpoint.network(), tmp_path / "text.pth")
    with pytest.raises(FileNotFoundError):
        load_backbone_weights(checkpoint.network(), tmp_path / "nowhere.pth")


def test_torchvision_download(
    checkpoint: Checkpoint, ssd: GIN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "torchvision" fetches the first ImageNet weights of the backbone; a failure says to pass a file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked: list[str] = []

    def refuse(request: urllib.request.Request, *_: object, **__: object) -> None:
        asked.append(request.full_url)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    for network in (small_network(checkpoint, "resnet50"), ssd):
        with pytest.raises(OSError, match="no network.*pass a file"):
            load_backbone_weights(network, "torchvision")
    v1 = [torchvision.models.ResNet50_Weights.IMAGENET1K_V1, torchvision.models.VGG16_Weights.IMAGENET1K_V1]
    assert asked == [weights.url for weights in v1]

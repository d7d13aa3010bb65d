"""Weights that a backbone learned on ImageNet, to begin training with."""

from pathlib import Path

import torchvision
from torch import Tensor

from model.backbone import Backbone
from model.checkpoint import InvalidCheckpoint, load_plain
from model.gin import GIN

TORCHVISION = "torchvision"  # in place of a path
COUNTER = "num_batches_tracked"  # of batch norms; files older than PyTorch 1.0 lack it, and nothing reads it


def load_backbone_weights(network: GIN, source: str | Path) -> None:
    """Set the backbone's weights; the classifier's, and others that it does not have, are passed over.

    source: "torchvision" downloads torchvision's IMAGENET1K_V1 weights (the authors'); else a path to a file of a
    torchvision state dictionary, names with `module.` before them or without. For ssd_vgg16 these are VGG16's, or the
    already thinned-out ones (`vgg16_reducedfc.pth`) that the authors begin with; its extra layers have none.

    These weights were learned on images normalised by ImageNet's mean and deviation. As in the authors' code, the
    network reads RGB in 0..1 all the same: training adapts it.

    Raises InvalidCheckpoint that lists every missing and misshapen tensor, and OSError where there is no such file or
    the download fails.
    """
    backbone = network.backbone
    name = network.config.backbone
    state = _download(name) if source == TORCHVISION else load_plain(source)
    state = {str(key).removeprefix("module."): tensor for key, tensor in state.items() if isinstance(tensor, Tensor)}
    layers = backbone.body if isinstance(backbone, Backbone) else backbone.vgg
    if not isinstance(backbone, Backbone) and "features.0.weight" in state:
        state = _thin_out(state)
    problems = []
    chosen = layers.state_dict()
    for key, ours in chosen.items():
        if key not in state:
            problems += [] if key.endswith(COUNTER) else [f"missing: {key}"]
        elif state[key].shape != ours.shape:
            problems.append(f"misshapen: {key} is {list(state[key].shape)}, expected {list(ours.shape)}")
        else:
            chosen[key] = state[key]
    if problems:
        listing = "\n  ".join(sorted(problems))
        raise InvalidCheckpoint(f"{source}: these are not weights of the backbone {name}:\n  {listing}")
    layers.load_state_dict(chosen)


def _download(backbone: str) -> dict[str, Tensor]:
    name = backbone.removeprefix("ssd_")
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:  # RuntimeError: what arrived has another hash
        raise OSError(
            f"the ImageNet weights of {backbone} could not be downloaded from {weights.url} ({error}); "
            "pass a file of them instead"
        ) from None


def _thin_out(vgg16: dict[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's VGG16 under the names of SSD's layers.

    Its first two linear layers become convolutions of every fourth channel and every third row and column of the 7 x 7
    cells that they saw, which dilation spreads again (the SSD paper's "base network", after DeepLab-LargeFOV).
    """
    state = {key.removeprefix("features."): tensor for key, tensor in vgg16.items() if key.startswith("features.")}
    fc6, fc7 = vgg16.get("classifier.0.weight"), vgg16.get("classifier.3.weight")
    if fc6 is not None and fc6.shape == (4096, 512 * 7 * 7):
        state["31.weight"] = fc6.view(4096, 512, 7, 7)[::4, :, ::3, ::3]
    if fc7 is not None and fc7.shape == (4096, 4096):
        state["33.weight"] = fc7[::4, ::4, None, None]
    for layer, theirs in (("31", "classifier.0.bias"), ("33", "classifier.3.bias")):
        if theirs in vgg16:
            state[f"{layer}.bias"] = vgg16[theirs][::4]
    return state

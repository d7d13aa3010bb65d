"""The network that a run begins with."""

import dataclasses
import sys

import torch

from model.backbone_weights import load_backbone_weights
from model.boxes import xyxy_to_yxyx
from model.checkpoint import Checkpoint
from model.gin import GIN
from model.loss import LossConfig, grounding_loss
from model.targets import attention_targets
from model.word_vectors import fill_embedding
from train.config import TrainConfig
from train.data.loading import Data
from train.rewrite import rewrite_if_the_same

EMBEDDING = "expression.embedding.weight"  # a row for each entry of the vocabulary


def build_network(config: TrainConfig, data: Data, known: Checkpoint | None, device: torch.device) -> GIN:
    """The network with its first weights, the same on every rank, with what is not trained marked so.

    known: checkpoint that brings all weights, but for the vectors of words that only the data's vocabulary has. Raises
    ValueError where it is of a network that differs in more than the size of its input.
    """
    torch.manual_seed(config.seed)
    network = GIN(config.model, len(data.vocabulary))
    if known is not None:
        _load(network, known, config)
    else:
        fill_embedding(network.expression.embedding, data.vectors)
        if config.backbone_weights is not None:
            load_backbone_weights(network, config.backbone_weights)
    _freeze(network, config)
    return move(network, device)


def move(network: GIN, device: torch.device) -> GIN:
    """The network on the device, in the form that is quickest there."""
    # A GPU waits for the host already, which would have a tenth more kernels to start.
    if device.type == "cpu" and not rewrite_if_the_same(network):
        print("this network is used as it is, for what train/rewrite.py makes of it answers otherwise", file=sys.stderr)
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compile_network(network: GIN) -> None:
    """Let PyTorch compile most of the work: the image part and the reasoning.

    Words are read faster by cuDNN than by what a compiler makes of it, and of the head's convolutions on a single cell
    PyTorch 2.11 expects gradients that lie otherwise in memory than they do.
    """
    network.encode_image = torch.compile(network.encode_image)  # type: ignore[method-assign]
    network.reason = torch.compile(network.reason)  # type: ignore[method-assign]


def _load(network: GIN, known: Checkpoint, config: TrainConfig) -> None:
    resized = dataclasses.replace(
        known.config, image_size=config.model.image_size, pyramid_levels=config.model.pyramid_levels
    )
    if resized != config.model:
        raise ValueError(f"the checkpoint to start from has another network: {resized.differences(config.model)}")
    missing = [name for name in network.state_dict() if name not in known.weights]
    if missing:
        raise ValueError(f"the checkpoint to start from has no pyramid levels as high as these: it lacks {missing}")
    weights = {name: known.weights[name] for name in network.state_dict()}
    new_words = network.expression.embedding.weight.detach()[len(known.vocabulary) :]
    weights[EMBEDDING] = torch.cat([weights[EMBEDDING], new_words])
    network.load_state_dict(weights)


def _freeze(network: GIN, config: TrainConfig) -> None:
    """Leave out of training what is asked to stay, and what the loss does not depend on in this configuration (as the
    finest lateral convolution where level 3 is left out), for which other ranks would wait in vain."""
    if config.data.word_vectors is not None:
        network.expression.embedding.weight.requires_grad_(False)
    if config.optim.backbone_lr == 0:
        network.backbone.requires_grad_(False)
    if config.optim.freeze_norm:
        for module in network.backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.requires_grad_(False)
    for parameter in _unused_parameters(network, config.loss):
        parameter.requires_grad_(False)


def _unused_parameters(network: GIN, loss: LossConfig) -> list[torch.nn.Parameter]:
    """Parameters to which the loss sends no gradient, found by trying."""
    size = network.config.image_size
    network.eval()
    grounding = network(
        torch.zeros(1, 3, size, size), torch.ones(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
    )
    true = xyxy_to_yxyx(torch.tensor([[0.25, 0.25, 0.75, 0.75]]), torch.ones(1, 2))
    grounding_loss(grounding, true, attention_targets(true, size), loss).total.backward()
    unused = [parameter for parameter in network.parameters() if parameter.grad is None]
    network.zero_grad(set_to_none=True)
    return unused

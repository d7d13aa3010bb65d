"""Batch norms folded into the convolutions before them: at inference they are constants."""

import copy
import warnings

from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.afs import Branch
from model.backbone import Backbone
from model.gin import GIN


def fold_norms(network: GIN) -> GIN:
    """Fold the norms of the backbone and of the AFS branches. GARAN's follow a sum, not a convolution, and stay."""
    network = copy.deepcopy(network).eval()
    if isinstance(network.backbone, Backbone):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fx warns that it copies attributes
            network.backbone.body = fuse(network.backbone.body, inplace=True)
    for branch in network.modules():
        if isinstance(branch, Branch) and isinstance(branch.norm1, nn.BatchNorm2d):
            branch.conv1 = fuse_conv_bn_eval(branch.conv1, branch.norm1)
            branch.conv2 = fuse_conv_bn_eval(branch.conv2, branch.norm2)
            branch.norm1, branch.norm2 = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    return network

"""TensorBoard: curves of the run, and a panel of validation pictures with what the network says about them."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import draw_bounding_boxes, make_grid

from model.answer import answer, pixels_to_images
from model.gin import GIN
from model.words import Vocabulary
from train.data.dataset import Batch

TRUE, CHOSEN = "#ffffff", "#e69f00"  # boxes; orange tells apart from white for every eye
LINES = 2  # most lines of an expression


class Board:
    """Writes into the folder `tensorboard` of a run."""

    def __init__(self, out: Path, epochs_done: int) -> None:
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=epochs_done + 1)

    def add_epoch(self, line: Mapping[str, Any]) -> None:
        """The numbers of a line of the history."""
        epoch = line["epoch"]
        for name, value in line["losses"].items():
            self._writer.add_scalar(f"loss/{name}", value, epoch)
        for name, value in line["val"].items():
            self._writer.add_scalar(f"val/{name}", value, epoch)
        for name in ("lr", "images_per_second", "skipped"):
            self._writer.add_scalar(f"train/{name}", line[name], epoch)

    def add_panel(self, network: GIN, vocabulary: Vocabulary, batch: Batch, device: torch.device, epoch: int) -> None:
        """Pictures with the true box (white), the chosen box (orange) and, red, where the network looked; above each
        the words that it was told."""
        self._writer.add_image("validation", draw_panel(network, vocabulary, batch, device), epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


@torch.inference_mode()
def draw_panel(network: GIN, vocabulary: Vocabulary, batch: Batch, device: torch.device) -> Tensor:
    """uint8 (3, H, W): a grid with one picture for each expression of the batch."""
    network.eval()
    batch = batch.to(device)
    side = batch.pixels.shape[1]
    grounding = network(pixels_to_images(batch.pixels), batch.ids, batch.lengths, batch.image_index)
    boxes = answer(grounding, torch.full_like(batch.image_sizes, side)).boxes.cpu()
    true = batch.boxes * side / batch.image_sizes.flip(1).repeat(1, 2)
    pictures = batch.pixels.permute(0, 3, 1, 2)[batch.image_index]
    if grounding.attention_logits:
        pictures = _look_where(pictures, grounding.attention_logits[0])
    said = [
        " ".join(vocabulary.spelled(ids[:length]))
        for ids, length in zip(batch.ids.tolist(), batch.lengths.tolist(), strict=True)
    ]
    drawn = []
    for picture, words, chosen, truth in zip(pictures.cpu(), said, boxes, true.cpu(), strict=True):
        x1, y1, x2, y2 = chosen.clamp(0, side - 1).tolist()
        chosen = torch.tensor([x1, y1, max(x1, x2), max(y1, y2)])
        picture = draw_bounding_boxes(picture, torch.stack((truth, chosen)), colors=[TRUE, CHOSEN], width=2)
        drawn.append(torch.cat((_caption(words, side), picture), dim=1))
    return make_grid(drawn, nrow=4)


def _caption(words: str, width: int) -> Tensor:
    """uint8 (3, H, width): white on black, with room for the most lines that there may be."""
    size = max(width // 22, 9)
    lines = textwrap.wrap(words, 2 * width // size, max_lines=LINES, placeholder=" ...")
    image = Image.new("RGB", (width, LINES * size * 4 // 3))
    ImageDraw.Draw(image).multiline_text((2, 0), "\n".join(lines), font=ImageFont.load_default(size), spacing=1)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def _look_where(pictures: Tensor, logits: Tensor) -> Tensor:
    """Redden pictures uint8 (N, 3, S, S) by attention logits (N, h, w), the strongest place most."""
    attention = logits.float().sigmoid()
    attention = attention / attention.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    attention = F.interpolate(attention[:, None], size=pictures.shape[2:], mode="bilinear")
    red = torch.tensor([255.0, 0.0, 0.0], device=pictures.device).view(1, 3, 1, 1)
    return (pictures + 0.5 * attention * (red - pictures)).round().to(torch.uint8)

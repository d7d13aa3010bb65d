"""The served answer is the network's."""

import io
import json
import urllib.request
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from client.library import Client
from export.served import ServedNetwork
from model.checkpoint import Checkpoint
from serve import Server

QUESTIONS = ["circle", "the red circle left of the blue square", " ".join(["star"] * 50), "a zebra 🦓", "Second_STAR!"]


def in_pytorch(checkpoint: Checkpoint, image: bytes, expressions: Sequence[str]) -> list[np.ndarray]:
    """Boxes, scores and attention of the network itself."""
    pixels, size = checkpoint.preparation.image(image)
    ids, lengths = checkpoint.preparation.expressions(expressions)
    arrays = pixels[None], ids, lengths, np.zeros(len(ids), dtype=np.int64), np.array([size])
    with torch.inference_mode():
        outputs = ServedNetwork(checkpoint.network())(*(torch.from_numpy(array) for array in arrays))
    return [output.numpy() for output in outputs]


@pytest.mark.parametrize("count", [1, len(QUESTIONS)])
def test_equals_pytorch(client: Client, checkpoint: Checkpoint, jpeg: bytes, count: int) -> None:
    """One or several expressions of 1 to 50 words: the same boxes, scores and attention as in PyTorch."""
    boxes, scores, attention, _ = in_pytorch(checkpoint, jpeg, QUESTIONS[:count])
    answers = client.ground(jpeg, QUESTIONS[:count], attention=True)
    assert [answer.expression for answer in answers] == QUESTIONS[:count]
    np.testing.assert_allclose([answer.box for answer in answers], boxes, atol=0.05)
    np.testing.assert_allclose([answer.score for answer in answers], scores, atol=1e-4)
    for answer, expected in zip(answers, attention, strict=True):
        np.testing.assert_allclose(answer.attention, expected, atol=1e-4)


def test_attention_only_when_asked(client: Client, jpeg: bytes) -> None:
    """Without asking, no map is sent."""
    assert client.ground(jpeg, "circle")[0].attention is None


def pictures(picture: Image.Image) -> dict[str, Image.Image]:
    """The same picture in several kinds."""
    grey16 = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 257)
    return {"palette": picture.convert("P"), "alpha": picture.convert("RGBA"), "grey": picture.convert("L")} | {
        "16 bit": grey16,
        "one pixel": picture.crop((0, 0, 1, 1)),
        "thin": picture.resize((1, 500)),
    }


def test_kinds_of_pictures(client: Client, checkpoint: Checkpoint, picture: Image.Image) -> None:
    """Palette, alpha, grey, 16-bit, tiny and thin pictures are answered as PyTorch does, inside the picture."""
    for name, kind in pictures(picture).items():
        file = io.BytesIO()
        kind.save(file, "PNG")
        boxes, *_ = in_pytorch(checkpoint, file.getvalue(), ["red circle"])
        answer = client.ground(file.getvalue(), "red circle")[0]
        np.testing.assert_allclose(answer.box, boxes[0], atol=0.05, err_msg=name)
        x1, y1, x2, y2 = answer.box
        assert 0 <= x1 <= x2 <= kind.width, name
        assert 0 <= y1 <= y2 <= kind.height, name


def test_rotated_picture(client: Client, picture: Image.Image) -> None:
    """A picture stored on its side is answered as a person sees it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored, upright = io.BytesIO(), io.BytesIO()
    picture.transpose(Image.Transpose.ROTATE_90).save(stored, "PNG", exif=exif)
    picture.save(upright, "PNG")
    turned = client.ground(stored.getvalue(), "red circle")[0]
    assert turned == client.ground(upright.getvalue(), "red circle")[0]


def test_first_frame(client: Client, picture: Image.Image) -> None:
    """Of an animation the first frame is answered."""
    moving, still = io.BytesIO(), io.BytesIO()
    frame = picture.quantize(64)
    frame.save(moving, "GIF", save_all=True, append_images=[Image.new("P", picture.size)], duration=50)
    frame.save(still, "PNG")
    assert client.ground(moving.getvalue(), "star")[0].box == pytest.approx(
        client.ground(still.getvalue(), "star")[0].box
    )


def test_http_speaks_too(server: Server, client: Client) -> None:
    """The Open Inference Protocol over HTTP gives the metadata of the same model."""
    with urllib.request.urlopen(f"http://{server.address}:{server.http_port}/v2/models/gin") as response:
        metadata = json.load(response)
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["IMAGE", "EXPRESSION"]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["BOX", "SCORE", "ATTENTION"]
    assert client.ready()

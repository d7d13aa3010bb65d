"""The served answer is the network's."""

import io
import json
import struct
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from client.library import Client
from export.graphs import make_graphs
from model.checkpoint import Checkpoint
from serve import Server

QUESTIONS = [
    "circle",
    "the red circle left of the blue square",
    " ".join(["star"] * 50),
    "a zebra 🦓",
    "Second_STAR!",
    "unheard-of words only",
    "🦓",
]


def in_pytorch(checkpoint: Checkpoint, image: bytes, expressions: Sequence[str]) -> list[np.ndarray]:
    """Boxes, scores and attention of the network itself."""
    pixels, size = checkpoint.preparation.image(image)
    ids, lengths = checkpoint.preparation.expressions(expressions)
    arrays = pixels[None], ids, lengths, np.zeros(len(ids), dtype=np.int64), np.array([size])
    with torch.inference_mode():
        outputs = make_graphs(checkpoint.network())["gin"].module(*(torch.from_numpy(array) for array in arrays))
    return [output.numpy() for output in outputs]


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def served_boxes(client: Client, image: bytes) -> np.ndarray:
    """The served boxes of all questions."""
    return np.array([answer.box for answer in client.ground(image, QUESTIONS)])


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


def test_neighbours_do_not_matter(client: Client, jpeg: bytes) -> None:
    """An expression is answered the same alone and beside longer ones."""
    together = served_boxes(client, jpeg)
    for expression, box in zip(QUESTIONS, together, strict=True):
        np.testing.assert_allclose(client.ground(jpeg, expression)[0].box, box, atol=0.05, err_msg=expression)


def test_most_expressions(client: Client, checkpoint: Checkpoint, jpeg: bytes) -> None:
    """64 expressions in one request are answered in their order."""
    asked = [f"{QUESTIONS[n % 2]} {'second ' * (n % 5)}" for n in range(64)]
    boxes, *_ = in_pytorch(checkpoint, jpeg, asked)
    np.testing.assert_allclose([answer.box for answer in client.ground(jpeg, asked)], boxes, atol=0.05)


def test_attention_only_when_asked(client: Client, jpeg: bytes) -> None:
    """Without asking, no map is sent."""
    assert client.ground(jpeg, "circle")[0].attention is None


def half_transparent(picture: Image.Image) -> Image.Image:
    """The picture, its left half fading away."""
    alpha = np.full((picture.height, picture.width), 255, dtype=np.uint8)
    alpha[:, : picture.width // 2] = np.linspace(0, 200, picture.width // 2)
    result = picture.convert("RGBA")
    result.putalpha(Image.fromarray(alpha))
    return result


def over_white(picture: Image.Image) -> Image.Image:
    """What shows of a picture with alpha on white paper, by the definition of alpha."""
    pixels = np.asarray(picture, dtype=np.float64)
    alpha = pixels[..., 3:] / 255
    return Image.fromarray(np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))


def sideways(picture: Image.Image, kind: str) -> bytes:
    """The picture stored on its side, with the note to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture.transpose(Image.Transpose.ROTATE_90), kind, exif=exif, quality=95)


def decoded(data: bytes) -> Image.Image:
    """The pixels as stored."""
    with Image.open(io.BytesIO(data)) as picture:
        return picture.convert("RGB")


def grey16(picture: Image.Image) -> Image.Image:
    """The picture in 16-bit grey."""
    return Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 257)


def animation(picture: Image.Image) -> bytes:
    """A GIF that shows the picture first and its mirror image then."""
    frames = [picture.quantize(64), ImageOps.mirror(picture).quantize(64)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


# For each kind of file: the file, what a person sees in it, and what a careless reader would see.
KINDS: dict[str, Callable[[Image.Image], tuple[bytes, Image.Image, Image.Image]]] = {
    "palette": lambda p: (
        encoded(p.quantize(64)),
        p.quantize(64).convert("RGB"),
        Image.fromarray(np.asarray(p.quantize(64))).convert("RGB"),
    ),
    "alpha": lambda p: (encoded(half_transparent(p)), over_white(half_transparent(p)), p),
    "alpha in WebP": lambda p: (
        encoded(half_transparent(p), "WEBP", lossless=True, exact=True),
        over_white(half_transparent(p)),
        p,
    ),
    "grey": lambda p: (encoded(p.convert("L")), p.convert("L").convert("RGB"), p),
    "16 bit": lambda p: (encoded(grey16(p)), p.convert("L").convert("RGB"), Image.new("RGB", p.size, "white")),
    "CMYK": lambda p: (
        encoded(p.convert("CMYK"), "JPEG", quality=95),
        decoded(encoded(p.convert("CMYK"), "JPEG", quality=95)),
        ImageOps.invert(p),
    ),
    "turned PNG": lambda p: (sideways(p, "PNG"), p, decoded(sideways(p, "PNG"))),
    "turned JPEG": lambda p: (
        sideways(p, "JPEG"),
        decoded(sideways(p, "JPEG")).transpose(Image.Transpose.ROTATE_270),
        decoded(sideways(p, "JPEG")),
    ),
    "animation": lambda p: (
        animation(p),
        p.quantize(64).convert("RGB"),
        ImageOps.mirror(p).quantize(64).convert("RGB"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pictures(client: Client, picture: Image.Image, kind: str) -> None:
    """Any kind of file is answered like the picture that a person sees in it, and unlike a misreading of it."""
    file, seen, misread = KINDS[kind](picture)
    boxes = served_boxes(client, file)
    np.testing.assert_allclose(boxes, served_boxes(client, encoded(seen)), atol=0.02)
    assert np.abs(boxes - served_boxes(client, encoded(misread))).max() > 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2), (1200, 900)])
def test_sizes_of_pictures(client: Client, checkpoint: Checkpoint, picture: Image.Image, size: tuple[int, int]) -> None:
    """Pictures of any size and shape are answered as in PyTorch, with boxes inside the picture."""
    file = encoded(picture.resize(size))
    boxes = served_boxes(client, file)
    expected, *_ = in_pytorch(checkpoint, file, QUESTIONS)
    np.testing.assert_allclose(boxes, expected, atol=0.05 * max(1, max(size) / 120))
    assert (boxes >= 0).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 2:] <= size).all()


def over_http(server: Server, image: bytes, expressions: Sequence[str]) -> dict[str, np.ndarray]:
    """Outputs by name, asked in the HTTP form of the protocol: a JSON header, then the inputs' bytes."""
    inputs, blobs = [], []
    for name, values in (("IMAGE", [image]), ("EXPRESSION", [text.encode() for text in expressions])):
        blobs.append(b"".join(struct.pack("<I", len(value)) + value for value in values))
        size = {"binary_data_size": len(blobs[-1])}
        inputs.append({"name": name, "shape": [len(values)], "datatype": "BYTES", "parameters": size})
    outputs = [{"name": name, "parameters": {"binary_data": False}} for name in ("BOX", "SCORE")]
    header = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    request = urllib.request.Request(
        f"http://{server.address}:{server.http_port}/v2/models/gin/infer",
        data=header + b"".join(blobs),
        headers={"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in answer["outputs"]}


def test_http_gives_the_same(server: Server, client: Client, jpeg: bytes) -> None:
    """Over HTTP the outputs that were asked for come back, the same as over gRPC."""
    answer = over_http(server, jpeg, QUESTIONS)
    assert set(answer) == {"BOX", "SCORE"}
    np.testing.assert_allclose(answer["BOX"], served_boxes(client, jpeg), atol=1e-3)
    scores = [found.score for found in client.ground(jpeg, QUESTIONS)]
    np.testing.assert_allclose(answer["SCORE"], scores, atol=1e-5)


def test_http_describes_the_model(server: Server, client: Client) -> None:
    """The Open Inference Protocol over HTTP gives the metadata of the same model."""
    with urllib.request.urlopen(f"http://{server.address}:{server.http_port}/v2/models/gin") as response:
        metadata = json.load(response)
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["IMAGE", "EXPRESSION", "TOP_K"]
    outputs = ["BOX", "SCORE", "ATTENTION", "PRESENCE", "FOUND", "UNKNOWN", "TOP_BOX", "TOP_SCORE"]
    assert [tensor["name"] for tensor in metadata["outputs"]] == outputs
    assert client.ready()


def metric(server: Server, name: str) -> float:
    """A metric of `gin`, as Prometheus would read it."""
    with urllib.request.urlopen(f"http://{server.address}:{server.metrics_port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f'{name}{{model="gin"'))


def await_metric(server: Server, name: str, value: float) -> None:
    """Metrics follow the answers; wait until one is there."""
    deadline = time.monotonic() + 10
    while metric(server, name) != value and time.monotonic() < deadline:
        time.sleep(0.01)
    assert metric(server, name) == value


def test_second_question_is_a_hit(server: Server, client: Client, picture: Image.Image) -> None:
    """The second question about the same bytes, whatever is asked, is counted as a hit, and answered the same."""
    file = encoded(picture.rotate(7))
    time.sleep(1)  # until what was asked before is told, twice a second
    hits, misses = metric(server, "gin_cache_hit_count"), metric(server, "gin_cache_miss_count")
    first = served_boxes(client, file)
    await_metric(server, "gin_cache_miss_count", misses + 1)
    np.testing.assert_allclose(client.ground(file, QUESTIONS[1])[0].box, first[1], atol=0.05)
    await_metric(server, "gin_cache_hit_count", hits + 1)
    assert metric(server, "gin_cache_miss_count") == misses + 1
    assert metric(server, "gin_cache_bytes") > 0

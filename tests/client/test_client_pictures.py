"""Pictures of every kind: each arrives at the server with every pixel, or is refused before it is sent."""

import io
from pathlib import Path

import numpy as np
import pytest
from alone import run_alone
from fake_kserve import FakeServer
from PIL import Image

from client import Client, Refused


def sent_pixels(server: FakeServer) -> np.ndarray:
    """The pixels of the image that arrived last."""
    with Image.open(io.BytesIO(server.asked[-1].image)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_arrive_unchanged(server: FakeServer, kind: type) -> None:
    data = bytes(range(256)) + b"\0\0\0"  # zeros at the end, which NumPy strings lose
    with Client(server.url) as client:
        client.ground(kind(data), "a")
    assert server.asked[0].image == data


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_arrives_unread(server: FakeServer, tmp_path: Path, kind: type) -> None:
    path = tmp_path / "not an image.jpg"
    path.write_bytes(b"\xff\xd8 broken")
    with Client(server.url) as client:
        client.ground(kind(path), "a")
    assert server.asked[0].image == b"\xff\xd8 broken"


def test_arrays_arrive_with_every_pixel(server: FakeServer, pixels: np.ndarray) -> None:
    with Client(server.url) as client:
        for array in (pixels, pixels[:, :, 0], pixels[::-1, ::2], np.asfortranarray(pixels), pixels[:1, :1]):
            client.ground(array, "a")
            assert np.array_equal(sent_pixels(server), array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_pillow_images_arrive_with_every_pixel(server: FakeServer, pixels: np.ndarray, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode)
    with Client(server.url) as client:
        client.ground(image, "a")
    expected = image.convert("RGB") if mode in ("CMYK", "YCbCr") else image
    assert np.array_equal(sent_pixels(server), np.asarray(expected))


@pytest.mark.parametrize("mode", ["PA", "RGBa"])
def test_transparency_arrives(server: FakeServer, pixels: np.ndarray, mode: str) -> None:
    image = Image.fromarray(pixels).convert("RGBA" if mode == "RGBa" else mode)
    image.putalpha(Image.fromarray(pixels[:, :, 0]))
    with Client(server.url) as client:
        client.ground(image.convert(mode), "a")
    assert np.array_equal(sent_pixels(server)[:, :, 3], pixels[:, :, 0])


def test_16_bits_of_either_order_arrive(server: FakeServer) -> None:
    """Pillow's own conversion of them to 8 bits would make everything above 255 white."""
    grey = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 27
    with Client(server.url) as client:
        for n, mode in enumerate(("I;16", "I;16B")):
            stored = grey.astype("<u2" if mode == "I;16" else ">u2")
            client.ground(Image.frombytes(mode, (60, 40), stored.tobytes()), "a")
            sent = np.asarray(Image.open(io.BytesIO(server.asked[n].image)))
            assert np.array_equal(sent, grey)


def test_a_pillow_image_arrives_upright(server: FakeServer, sideways: bytes) -> None:
    with Client(server.url) as client, Image.open(io.BytesIO(sideways)) as image:
        client.ground(image, "a")
        assert np.array_equal(sent_pixels(server), np.rot90(np.asarray(image), -1))
    assert Image.open(io.BytesIO(server.asked[0].image)).getexif().get(0x0112, 1) == 1


def test_threads_may_share_a_pillow_image(server: FakeServer) -> None:
    """Pillow reads its file when the first of them asks."""
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(noise).save(buffer, "JPEG", exif=exif)
    with Client(server.url) as client, Image.open(buffer) as image:
        list(client.ground_many([(image, "a")] * 4, in_flight=4))
    assert len({asked.image for asked in server.asked}) == 1
    assert sent_pixels(server).shape == (1600, 1200, 3)


def test_a_process_forked_while_a_picture_is_read_reads_pictures() -> None:
    forking = """
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from client.pictures import file_bytes

Image.preinit()  # what another thread is importing when a process forks can never be imported in the child
begun = threading.Event()

class Slow(Image.Image):
    def load(self):
        begun.set()
        time.sleep(0.5)
        return super().load()

slow = Image.new("RGB", (2, 2))
slow.__class__ = Slow
with ThreadPoolExecutor() as pool:
    reading = pool.submit(file_bytes, slow)
    assert begun.wait(10)
    child = os.fork()
    if child == 0:
        file_bytes(Image.new("RGB", (2, 2)))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert reading.result()
"""
    run_alone(forking)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("no such file.jpg", "no file"),
        ("https://example.com/a.jpg", "fetch the picture first"),
        (".", "is a folder"),
        ("\0", "cannot read"),
        ("/dev/zero", "too large to send"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (Image.new("RGB", (4, 0)), "no pixels"),
        (Image.new("F", (4, 4)), "mode F cannot be sent: scale it to 8 bits"),
        (Image.new("I", (4, 4)), "mode I"),
        (None, "NoneType"),
    ],
)
def test_images_that_cannot_be_sent_are_refused_before_asking(server: FakeServer, image: object, says: str) -> None:
    with Client(server.url) as client, pytest.raises(Refused, match=says.replace("(", r"\(").replace(")", r"\)")):
        client.ground(image, "a")  # type: ignore[arg-type]
    assert not server.asked


def test_a_damaged_file_behind_a_pillow_image_is_refused(server: FakeServer, pixels: np.ndarray) -> None:
    """Pillow reads the pixels only now, and its decoder of QOI knows no error but Python's own IndexError."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "QOI")
    image = Image.open(io.BytesIO(buffer.getvalue()[:-1000]))
    with Client(server.url) as client, pytest.raises(Refused, match="cannot encode this Pillow image: index out of"):
        client.ground(image, "a")
    assert not server.asked

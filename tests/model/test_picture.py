"""Decoding: every kind of picture as a person sees it, and every kind of damage refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from model.picture import MAX_BYTES, InvalidInput, read_picture


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture as a file's bytes."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA"])
def test_modes(picture: Image.Image, mode: str) -> None:
    """Grey, palette, black-and-white and opaque alpha pictures decode to what Pillow shows of them."""
    converted = picture.convert(mode)
    assert np.array_equal(read_picture(encode(converted)), converted.convert("RGB"))


def test_alpha_lies_over_white() -> None:
    """Where a picture is transparent, white paper shows."""
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_picture(encode(picture)).getpixel((0, 0)) == (255, 255, 255)


def test_16_bits_are_scaled_not_clipped() -> None:
    """65535 is white, 257 times a grey value is that grey."""
    values = np.array([[0, 257, 25_700, 65_535]], dtype=np.uint16)
    grey = np.asarray(read_picture(encode(Image.fromarray(values))))[0, :, 0]
    assert grey.tolist() == [0, 1, 100, 255]


def test_cmyk(picture: Image.Image) -> None:
    """A CMYK JPEG comes out in RGB, near its original."""
    decoded = read_picture(encode(picture.convert("CMYK"), "JPEG", quality=95))
    assert decoded.mode == "RGB"
    assert np.abs(np.asarray(decoded, dtype=int) - np.asarray(picture, dtype=int)).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(picture: Image.Image, orientation: int) -> None:
    """A picture stored turned, with the EXIF note that says so, decodes upright."""
    turns = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = picture
    for turn in turns[orientation]:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_picture(encode(stored, exif=exif)), picture)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame(kind: str) -> None:
    """Of an animation the first frame counts."""
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encode(red, kind, save_all=True, append_images=[blue], duration=100)
    r, _, b = read_picture(data).getpixel((4, 4))
    assert r > 200 > 100 > b


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    """One pixel and thin strips are pictures."""
    assert read_picture(encode(Image.new("RGB", size, "green"))).size == size


def test_truncated_files_are_refused(jpeg: bytes, picture: Image.Image) -> None:
    """A file cut anywhere is refused, not guessed at."""
    for data in (jpeg, encode(picture)):
        for share in (0.05, 0.3, 0.6, 0.95):
            with pytest.raises(InvalidInput):
                read_picture(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(picture: Image.Image, kind: str) -> None:
    """Only the listed formats are parsed, whatever Pillow could open."""
    with pytest.raises(InvalidInput, match="none of"):
        read_picture(encode(picture, kind))


@pytest.mark.parametrize("data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0", b"\xff\xd8\xff\xe0 not really"])
def test_not_a_picture(data: bytes) -> None:
    """Anything else is refused with a sentence."""
    with pytest.raises(InvalidInput, match="image"):
        read_picture(data)


def test_bomb_is_refused_by_its_header() -> None:
    """A file that claims 60 000 x 60 000 pixels is refused before they are allocated."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    with pytest.raises(InvalidInput, match=r"pixels|large"):
        read_picture(b"\x89PNG\r\n\x1a\n" + body)


def test_huge_files_are_refused() -> None:
    """A file over the limit is refused unread."""
    with pytest.raises(InvalidInput, match="bytes"):
        read_picture(b"\0" * (MAX_BYTES + 1))


def test_damage_never_escapes_as_another_error(jpeg: bytes, picture: Image.Image) -> None:
    """Flipped bytes give a picture or InvalidInput, nothing else."""
    random = np.random.default_rng(0)
    for data in (jpeg, encode(picture), encode(picture, "WEBP"), encode(picture, "GIF")):
        for _ in range(150):
            damaged = bytearray(data)
            for position in random.integers(len(data), size=random.integers(1, 8)):
                damaged[position] = random.integers(256)
            try:
                assert read_picture(bytes(damaged)).mode == "RGB"
            except InvalidInput:
                pass

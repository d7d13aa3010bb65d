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


def whole(data: bytes) -> Image.Image:
    """The picture itself."""
    return read_picture(data)[0]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA"])
def test_modes(picture: Image.Image, mode: str) -> None:
    """Grey, palette, black-and-white and opaque alpha pictures decode to what Pillow shows of them."""
    converted = picture.convert(mode)
    assert np.array_equal(whole(encode(converted)), converted.convert("RGB"))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_strips(picture: Image.Image, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is converted by strips is what would be at once."""
    grey = picture.convert("L")
    converted = Image.fromarray(np.asarray(grey).astype(np.uint16) * 250) if mode == "I;16" else picture.convert(mode)
    if mode == "RGBA":
        converted.putalpha(grey)
    file = encode(converted)
    at_once = np.asarray(whole(file))
    monkeypatch.setattr("model.picture.STRIP", 7 * picture.width)
    assert np.array_equal(whole(file), at_once)
    assert len(np.unique(at_once)) > 5


def test_alpha_lies_over_white() -> None:
    """Where a picture is transparent, white paper shows."""
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert whole(encode(picture)).getpixel((0, 0)) == (255, 255, 255)
    for levels in (np.array([[40, 50]], dtype=np.uint8), np.array([[10_280, 12_850]], dtype=np.uint16)):
        data = encode(Image.fromarray(levels), transparency=int(levels[0, 1]))
        assert np.asarray(whole(data))[0, :, 0].tolist() == [40, 255]


def test_16_bits_are_scaled_not_clipped() -> None:
    """65535 is white, 257 times a grey value is that grey."""
    values = np.array([[0, 257, 25_700, 65_535]], dtype=np.uint16)
    grey = np.asarray(whole(encode(Image.fromarray(values))))[0, :, 0]
    assert grey.tolist() == [0, 1, 100, 255]


def test_cmyk(picture: Image.Image) -> None:
    """A CMYK JPEG comes out in RGB, near its original."""
    decoded = whole(encode(picture.convert("CMYK"), "JPEG", quality=95))
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
    assert np.array_equal(whole(encode(stored, exif=exif)), picture)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame(kind: str) -> None:
    """Of an animation the first frame counts."""
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encode(red, kind, save_all=True, append_images=[blue], duration=100)
    r, _, b = whole(data).getpixel((4, 4))
    assert r > 200 > 100 > b


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    """One pixel and thin strips are pictures."""
    assert whole(encode(Image.new("RGB", size, "green"))).size == size


def test_truncated_files_are_refused(jpeg: bytes, picture: Image.Image) -> None:
    """A file cut anywhere is refused, not guessed at."""
    for data in (jpeg, encode(picture)):
        for share in (0.05, 0.3, 0.6, 0.95):
            with pytest.raises(InvalidInput):
                whole(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(picture: Image.Image, kind: str) -> None:
    """Only the listed formats are parsed, whatever Pillow could open."""
    with pytest.raises(InvalidInput, match="none of"):
        whole(encode(picture, kind))


@pytest.mark.parametrize("data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0", b"\xff\xd8\xff\xe0 not really"])
def test_not_a_picture(data: bytes) -> None:
    """Anything else is refused with a sentence."""
    with pytest.raises(InvalidInput, match="image"):
        whole(data)


def test_bomb_is_refused_by_its_header() -> None:
    """A file that claims 60 000 x 60 000 pixels is refused before they are allocated."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    with pytest.raises(InvalidInput, match=r"pixels|large"):
        whole(b"\x89PNG\r\n\x1a\n" + body)


def test_huge_files_are_refused() -> None:
    """A file over the limit is refused unread."""
    with pytest.raises(InvalidInput, match="bytes"):
        whole(b"\0" * (MAX_BYTES + 1))


def test_damage_never_escapes_as_another_error(jpeg: bytes, picture: Image.Image) -> None:
    """Flipped bytes give a picture or InvalidInput, nothing else."""
    random = np.random.default_rng(0)
    for data in (jpeg, encode(picture), encode(picture, "WEBP"), encode(picture, "GIF")):
        for _ in range(150):
            damaged = bytearray(data)
            for position in random.integers(len(data), size=random.integers(1, 8)):
                damaged[position] = random.integers(256)
            try:
                assert whole(bytes(damaged)).mode == "RGB"
            except InvalidInput:
                pass


def photograph(width: int, height: int) -> Image.Image:
    """Soft and hard edges and grain, at any size."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / max(width, height)
    pixels = np.stack((255 * x, 255 * y, 127 + 120 * np.sin(20 * x * y)), axis=2)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 30)
    return Image.fromarray((pixels + random.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_smaller_scale(orientation: int) -> None:
    """A JPEG decoded at a smaller scale has no side below the least, tells its whole size, and shows the same."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph(1000, 700), "JPEG", quality=90, exif=exif)
    (full, size), (small, small_size) = read_picture(data), read_picture(data, least=150)
    assert size == small_size == ((1000, 700) if orientation > 4 else (700, 1000))
    assert sorted(small.size) == [175, 250]
    difference = np.asarray(full.resize(small.size, Image.Resampling.BOX), int) - np.asarray(small, int)
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("options", [{"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"subsampling": 0}])
def test_kinds_of_jpeg_at_a_smaller_scale(options: dict) -> None:
    """Progressive, grey, CMYK and unsubsampled files too."""
    more = {name: value for name, value in options.items() if name != "mode"}
    data = encode(photograph(640, 480).convert(options.get("mode", "RGB")), "JPEG", quality=95, **more)
    small, size = read_picture(data, least=100)
    assert (small.size, small.mode, size) == ((160, 120), "RGB", (480, 640))
    difference = np.asarray(whole(data).resize((160, 120), Image.Resampling.BOX), int) - np.asarray(small, int)
    assert np.abs(difference).mean() < 3


def test_small_pictures_and_other_formats_stay_whole() -> None:
    """Nothing is scaled that has less than twice the least, or that is no JPEG."""
    picture = photograph(299, 500)
    for data in (encode(picture, "JPEG"), encode(picture)):
        assert np.array_equal(read_picture(data, least=150)[0], whole(data))


def test_half_a_file_at_a_smaller_scale() -> None:
    """What was cut off is noticed all the same."""
    data = encode(photograph(1600, 1200), "JPEG")
    with pytest.raises(InvalidInput, match="damaged"):
        read_picture(data[: len(data) // 2], least=100)

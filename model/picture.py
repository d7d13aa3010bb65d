"""Encoded picture bytes to an upright 8-bit RGB picture, with every way of failing made one clear error."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # nothing else is parsed, whatever Pillow could open
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000  # checked on the header, before pixels are allocated
STRIP = 2**20  # pixels that are converted at once
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # EXIF tag, and its values that exchange the sides
RESIZE_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class InvalidInput(ValueError):
    """An image or an expression that cannot be answered; the message says why."""


def read_picture(data: bytes, least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a picture as a person sees it: first frame, orientation applied, RGB, transparency over white.

    least: a JPEG may come smaller, a half, a quarter or an eighth of its size, as long as no side is below so many
    pixels: its decoder can leave out what is not needed, at a fraction of the time. Returns the picture, and the
    (height, width) of the whole one. Raises InvalidInput for anything that is not a whole JPEG, PNG, WebP or GIF
    picture within the limits.
    """
    if not data:
        raise InvalidInput("the image is empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"the image has {len(data):,} bytes; at most {MAX_BYTES:,} are accepted")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_size(picture.size)
                width, height = picture.size
                if least is not None:
                    picture.draft(None, (least, least))  # does nothing to formats that cannot
                picture.load()
                lying = picture.getexif().get(ORIENTATION, 1) in LYING
                ImageOps.exif_transpose(picture, in_place=True)
                return _to_rgb(picture), (width, height) if lying else (height, width)
    except InvalidInput:
        raise
    except Image.UnidentifiedImageError:
        raise InvalidInput(f"the image is none of {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidInput(f"the image has too many pixels; at most {MAX_PIXELS:,} are accepted") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError and others
        raise InvalidInput(f"the image is damaged: {str(error) or type(error).__name__}") from None


def resize(picture: Image.Image, size: int, resize_filter: str) -> np.ndarray:
    """A picture squeezed to a square, aspect ratio not kept: uint8 (size, size, 3)."""
    return np.array(picture.resize((size, size), RESIZE_FILTERS[resize_filter]))


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise InvalidInput(f"the image has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")


def _to_rgb(picture: Image.Image) -> Image.Image:
    """By strips, for what is between takes several times the memory of the picture."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    width, height = picture.size
    rows = max(STRIP // width, 1)
    whole = Image.new("RGB", picture.size)
    for top in range(0, height, rows):
        whole.paste(_strip_to_rgb(picture.crop((0, top, width, min(top + rows, height)))), (0, top))
    return whole


def _strip_to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits a channel: Pillow's own conversion would clip
        levels = np.asarray(picture, dtype=np.float64)
        grey = np.clip(np.rint(levels / 257.0), 0, 255).astype(np.uint8)
        grey[levels == picture.info.get("transparency")] = 255
        picture = Image.fromarray(grey)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture)
    return picture.convert("RGB")

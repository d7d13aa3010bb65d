"""Pictures of every kind a caller may hold -> the bytes of an image file, which is what the server takes."""

import io
import os
import threading
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from client.errors import Refused

Array: TypeAlias = np.ndarray[Any, Any]
ImageLike: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | Array
"""A path, the bytes of an image file, a Pillow image, or uint8 pixels (H, W, 3) in RGB order or (H, W) grey."""

MAX_BYTES = 64 * 2**20  # the largest message sent; the server's own limit is lower, and it says so itself
_READING = threading.Lock()
os.register_at_fork(before=_READING.acquire, after_in_parent=_READING.release, after_in_child=_READING.release)
_RUN_LENGTHS = 3  # zlib's Z_RLE: on photographs faster than the default search for repetitions, and no larger
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")


def file_bytes(image: ImageLike) -> bytes:
    """The bytes of an image file showing `image`.

    Files and bytes pass unread, whatever they hold. Pillow images and arrays are encoded without loss, as PNG with
    fast compression (tens of milliseconds for 640 x 480: a camera's own JPEG bytes are quicker to send); a Pillow
    image is turned upright first if its EXIF data say so.
    Raises Refused for what cannot be sent: a file that cannot be read, or pixels of another shape or type.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return _read(image)
    if isinstance(image, np.ndarray):
        return _encode(_from_array(image))
    if isinstance(image, Image.Image):
        return _encode(image)
    raise Refused(f"expected an image as path, bytes, Pillow image or NumPy array, got {type(image).__name__}")


def turned(image: Image.Image) -> Image.Image:
    """A copy as a person sees it, by the EXIF data. Threads may share `image`, whose file Pillow reads only now."""
    with _READING:
        return ImageOps.exif_transpose(image)


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            # Never the whole file unseen: a path may lead to a pipe or a device without end.
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        hint = ": fetch the picture first" if "://" in str(path) else ""
        raise Refused(f"no file {os.fspath(path)!r}{hint}") from None
    except IsADirectoryError:
        raise Refused(f"{os.fspath(path)!r} is a folder: give an image file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refused(f"cannot read {os.fspath(path)!r}: {reason}") from None
    if len(data) > MAX_BYTES:
        raise Refused(f"{os.fspath(path)!r} is larger than {MAX_BYTES >> 20} MiB: too large to send")
    return data


def _from_array(pixels: Array) -> Image.Image:
    shape_is_good = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not shape_is_good:
        raise Refused(f"expected pixels as uint8 (H, W, 3) or (H, W), got {pixels.dtype} {pixels.shape}")
    if pixels.size == 0:
        raise Refused(f"an array of shape {pixels.shape} holds no pixels")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _encode(image: Image.Image) -> bytes:
    if 0 in image.size:
        raise Refused(f"an image of {image.width} x {image.height} holds no pixels")
    buffer = io.BytesIO()
    try:
        upright = turned(image)
        if upright.mode not in _PNG_MODES:
            # PNG would cut 32-bit integers to 16 bits without a word, and has no floating point.
            if upright.mode[0] in "IF":
                raise Refused(f"a Pillow image of mode {upright.mode} cannot be sent: scale it to 8 bits (L) first")
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        # Left in, a colour profile of the original would describe pixels that were converted since.
        upright.save(buffer, "PNG", compress_level=1, compress_type=_RUN_LENGTHS, icc_profile=None)
    except Refused:
        raise
    except Exception as error:  # a Pillow image reads its file only now, and decoders raise errors of every kind
        raise Refused(f"cannot encode this Pillow image: {str(error) or type(error).__name__}") from None
    return buffer.getvalue()

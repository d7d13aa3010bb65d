"""Video files for the tests, made here: a blue disc that moves over grey."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

RATE, COUNT, SIZE = 25, 50, (160, 120)


def make_clip(
    path: Path,
    count: int = COUNT,
    rotation: int = 0,
    pixel: Fraction = Fraction(1),
    options: dict[str, str] | None = None,
) -> Path:
    """`count` frames at RATE; `rotation`: degrees counterclockwise that a player has to turn them by; `pixel`:
    width of a pixel by its height."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel
        if rotation:
            stream.set_display_rotation(rotation)
        for n in range(count):
            picture = Image.new("RGB", SIZE, (128, 128, 128))
            ImageDraw.Draw(picture).ellipse((20 + 2 * n, 20, 40 + 2 * n, 40), fill="blue")
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(path: Path) -> tuple[list[np.ndarray], list[float], Fraction]:
    """The frames of a video as (H, W, 3) RGB, their times in seconds, and their rate."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.name == "h264"
        assert {frame.format.name for frame in frames} == {"yuv420p"}
        return (
            [f.to_ndarray(format="rgb24") for f in frames],
            [f.time for f in frames],
            container.streams.video[0].average_rate,
        )


def orange(frame: np.ndarray) -> int:
    """How many pixels have about the colour of the first answer's box and label; the clip itself has none."""
    return int((np.abs(frame.astype(int) - (0xD5, 0x5E, 0x00)).max(axis=2) < 40).sum())

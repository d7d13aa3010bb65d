"""Frames into an H.264 file that appears whole, or not at all."""

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from PIL import Image

from client.errors import Refused

SUFFIXES = (".mp4",)
_CLOCK = Fraction(1, 90_000)  # seconds: every usual rate is a whole number of these
_QUALITY = {"preset": "veryfast", "crf": "20"}


class Film:
    """Pictures with their times, written beside `path` until `finish`. Raises Refused for what cannot be written.

    frames: written so far. finished: whether there is a file at `path`.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.frames, self.finished = path, 0, False
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._last = -1
        try:
            self._container = av.open(str(self._unfinished), "w", format="mp4")
        except (av.FFmpegError, OSError) as error:
            raise self._refused(error) from None
        self._rate = rate
        self._stream: VideoStream | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unfinished.unlink(missing_ok=True)

    def write(self, picture: Image.Image, seconds: float) -> None:
        """One more picture, shown from `seconds` on. The first one decides the size: its own, made even."""
        if self._stream is None:
            self._stream = self._add_stream(picture)
        size = self._stream.width, self._stream.height
        frame = VideoFrame.from_image(picture).reformat(
            *size, "yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        self._last = max(round(seconds / _CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, _CLOCK
        self._encode(self._stream, frame)
        self.frames += 1

    def finish(self) -> None:
        """Make the file appear under its name; nothing appears if nothing was written."""
        if self._stream is None:
            return
        self._encode(self._stream, None)
        try:
            self._container.close()
            self._unfinished.replace(self.path)
            self.finished = True
        except (av.FFmpegError, OSError) as error:
            raise self._refused(error) from None

    def _add_stream(self, picture: Image.Image) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=self._rate, options=_QUALITY)
        stream.width, stream.height = picture.width + picture.width % 2, picture.height + picture.height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = _CLOCK
        # Said outright: players guess the matrix from the size, and guess differently.
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return stream

    def _encode(self, stream: VideoStream, frame: VideoFrame | None) -> None:
        try:
            self._container.mux(stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> Refused:
        return Refused(f"cannot write {self.path}: {getattr(error, 'strerror', None) or error}")

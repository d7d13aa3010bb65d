"""Where frames come from: a file, played at its own speed, or a camera, of which only the newest frame counts."""

import contextlib
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.stream import Disposition
from av.video.frame import VideoFrame
from PIL import Image

from client.errors import Refused

_USUAL_RATE = Fraction(25)  # frames a second, where a source names none
_SILENCE = 10.0  # seconds without a word or a frame, after which a camera counts as gone
_LOOK = 0.1  # seconds between two looks at whether to stop
_PARTING = 2.0  # seconds, at most, for a camera's last frame to come


class Frame:
    """number: its place among the frames, from 0. seconds: since the first one. arrived: by time.monotonic.

    pixel: width of a pixel by its height. Threads may share it.
    """

    def __init__(self, number: int, seconds: float, decoded: VideoFrame, pixel: Fraction) -> None:
        self.number, self.seconds, self.arrived = number, seconds, time.monotonic()
        self._decoded, self._pixel = decoded, pixel
        self._image: Image.Image | None = None
        self._making = threading.Lock()  # FFmpeg dies of two threads that convert the same frame

    @property
    def image(self) -> Image.Image:
        """RGB as a person sees it, upright and with square pixels. Made when it is first asked for."""
        with self._making:
            if self._image is None:
                picture: Image.Image = self._decoded.to_image(width=round(self._decoded.width * self._pixel) or 1)
                quarters = round(self._decoded.rotation / 90)  # counterclockwise, as Pillow counts
                self._image = picture.rotate(quarters * 90, expand=True)
            return self._image


class Source(ABC):
    """An opened container with video in it; use it as a context manager.

    name: for messages. rate: frames a second, on average. length: how many frames there are, 0 if nobody knows.
    """

    def __init__(self, name: str | Path, kind: str | None = None, patience: float | None = None) -> None:
        """kind: FFmpeg's name of the format, where it is not to be found out. patience: seconds to wait for anything to
        come, for ever unless given. Raises Refused for what has no video."""
        self.name = str(name)
        try:
            self._container = av.open(self.name, format=kind, timeout=patience)
        except (av.FFmpegError, OSError) as error:
            unknown = isinstance(error, av.error.InvalidDataError | av.error.EOFError)
            why = "it is no video, or a part of one" if unknown else _reason(error)
            raise Refused(f"cannot read {self.name!r}: {why}") from None
        pictures = Disposition.attached_pic  # the cover of a song is no video
        stream = next((s for s in self._container.streams.video if not s.disposition & pictures), None)
        if stream is None:
            self._container.close()
            raise Refused(f"{self.name!r} has no video in it")
        self._stream = stream
        self.rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
        self.length = stream.frames
        self._pixel = stream.sample_aspect_ratio or Fraction(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Frames as they come, until there is none or `stop` is set. Raises Refused if the source breaks off."""

    def close(self) -> None:
        """Let go of the source."""
        self._container.close()

    def _decoded(self) -> Iterator[VideoFrame]:
        """Every frame that can be decoded."""
        try:
            for packet in self._container.demux(self._stream):
                with contextlib.suppress(av.error.InvalidDataError):  # a camera's first packet is often half a frame
                    yield from packet.decode()
        except (av.FFmpegError, OSError) as error:
            raise Refused(f"cannot read {self.name!r} any further: {_reason(error)}") from None


class File(Source):
    """A video file. A part that cannot be decoded is passed over, as players do."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stream.thread_type = "AUTO"
        if not self.length and self._container.duration:
            self.length = round(self._container.duration / av.time_base * self.rate)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Every frame, none before its time; time runs from when the second is asked for."""
        first = started = 0.0
        for number, decoded in enumerate(self._decoded()):
            in_file = float(number / self.rate) if decoded.pts is None else decoded.time
            if number == 0:
                first = in_file
            elif number == 1:
                started = time.monotonic()
            if stop.wait(max(started + in_file - first - time.monotonic(), 0)):
                return
            yield Frame(number, in_file - first, decoded, self._pixel)
        self._check_end()

    def _check_end(self) -> None:
        # A demuxer takes the end of the file for the end of the video; some formats list where the last frame ends.
        index, size = self._stream.index_entries, self._container.size  # a pipe's is 0 or less
        if size > 0 and len(index) and index[-1].pos + index[-1].size > size:
            raise Refused(f"{self.name!r} is cut off: the rest of its frames is missing")


class Camera(Source):
    """A camera of Video4Linux or, without a `kind`, at an address of the network.

    A thread takes each frame as it comes, so that none grows old on the way.
    """

    def __init__(self, name: str | Path, kind: str | None = "v4l2") -> None:
        super().__init__(name, kind, patience=_SILENCE)
        self.length = 0
        self._newest: Frame | None = None
        self._end = "it gives no more pictures"
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._read, name="gin-camera", daemon=True)
        self._thread.start()

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """The newest frame, each at most once; those that came while nobody asked are lost."""
        while (frame := self._next(stop)) is not None:
            yield frame

    def close(self) -> None:
        """As for every source, once the thread has noticed."""
        self._closing = True
        self._thread.join(_PARTING)
        if not self._thread.is_alive():  # a driver that hangs keeps what it has
            super().close()

    def _next(self, stop: threading.Event) -> Frame | None:
        until = time.monotonic() + _SILENCE
        with self._changed:
            while not stop.is_set():
                if (frame := self._newest) is not None:
                    self._newest = None
                    return frame
                if not self._thread.is_alive():
                    raise Refused(f"the camera {self.name} went away: {self._end}")
                if time.monotonic() > until:
                    raise Refused(f"the camera {self.name} has given no picture for {_SILENCE:g} s")
                self._changed.wait(_LOOK)
        return None

    def _read(self) -> None:
        started = 0.0
        try:
            for number, decoded in enumerate(self._decoded()):
                if number == 0:
                    started = time.monotonic()
                with self._changed:
                    self._newest = Frame(number, time.monotonic() - started, decoded, self._pixel)
                    self._changed.notify()
                if self._closing:
                    return
        except Refused as error:
            self._end = str(error)


def _reason(error: Exception) -> str:
    """What FFmpeg met, in words."""
    if isinstance(error, av.error.ExitError):  # its word for patience that ended
        return f"nothing came for {_SILENCE:g} s"
    return getattr(error, "strerror", None) or str(error)


def open_source(name: str) -> Source:
    """A camera for a number, a device or an address, else a file. Raises Refused if there is nothing of that name."""
    if "://" in name:
        return Camera(name, kind=None)
    path = Path(f"/dev/video{name}" if name.isdecimal() else name)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.parent != Path("/dev"):
            raise Refused(f"no file {name!r}") from None
        there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        raise Refused(f"no camera {str(path)!r} (there is {there})") from None
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read {name!r}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(mode):
        raise Refused(f"{name!r} is a folder: give a video file")
    return Camera(path) if stat.S_ISCHR(mode) else File(path)

"""Videos: every frame is written whatever the server keeps up with, and what is written is a whole file or none."""

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import grpc
import pytest
from clips import COUNT, RATE, SIZE, make_clip, orange, read
from fake_kserve import CODE, FakeServer, answer, failing, running
from PIL import Image
from tritonclient.grpc import service_pb2

from client.errors import Refused
from client.video import asking, command
from client.video.source import Camera, File, Frame, open_source

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of video, whose index comes first."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", options={"movflags": "faststart"})


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, float], str]:
    """Exit status, the report (empty if there is none) and what is on stderr."""
    try:
        status = command.main([str(word) for word in words])
    except SystemExit as ended:  # wrong usage
        status = int(str(ended.code))
    out, err = capsys.readouterr()
    assert err.count("\n") == (status != 0), err
    return status, json.loads(out.splitlines()[-1]) if out else {}, err


def slowly(server: FakeServer, context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
    time.sleep(0.3)
    return answer(server, context)


def test_frames_that_are_passed_over_are_written(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(FakeServer(script=[slowly] * COUNT)) as slow:
        words = [clip, "ball", "--save", tmp_path / "out.mp4", "--in-flight", "1", "--url", slow.url]
        status, report, _ = run(capsys, *words)
    assert status == 0
    assert 1 < report["asked"] == len(slow.asked) < COUNT
    assert report["dropped"] == COUNT - report["asked"]
    frames, times, rate = read(tmp_path / "out.mp4")
    assert (len(frames), rate) == (COUNT, RATE)
    assert times == pytest.approx([n / RATE for n in range(COUNT)], abs=1e-4)
    assert min(map(orange, frames)) > 100


def test_threads_share_a_frame() -> None:
    """The one that asks and the one that draws convert it once: FFmpeg dies of two that do so at the same time."""
    together = threading.Barrier(2)

    def convert(width: int) -> Image.Image:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.5)  # for another one in here
        return Image.new("RGB", (width, 4))

    decoded = Mock(width=8, rotation=0, to_image=Mock(side_effect=convert))
    frame = Frame(0, 0.0, decoded, Fraction(1))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda frame: frame.image, [frame] * 2)
    assert first is second
    assert decoded.to_image.call_count == 1


def test_what_was_done_is_kept_when_the_server_breaks(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    with running(FakeServer(script=[answer] * 5 + [failing(CODE.INTERNAL, "out of memory")] * COUNT)) as broken:
        status, report, err = run(capsys, clip, "ball", "--save", out, "--url", broken.url)
    assert status == 1
    assert "out of memory" in err
    frames, _, _ = read(out)
    assert report["frames"] == len(frames) < COUNT
    assert f"({len(frames)} frames are in {out})" in err
    assert os.listdir(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("code", [CODE.UNAVAILABLE, CODE.DEADLINE_EXCEEDED])
def test_a_server_that_is_away_for_a_while_is_waited_for(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: grpc.StatusCode
) -> None:
    """Frames in between have no answer of their own."""
    script = [answer, *[failing(code, "restarting")] * 7, *[slowly] * COUNT]
    with running(FakeServer(script=script)) as server:
        words = [clip, "ball", "--save", tmp_path / "out.mp4", "--in-flight", "1", "--url", server.url]
        status, report, _ = run(capsys, *words)
    assert status == 0
    assert 1 < report["answered"] < report["asked"]
    assert len(read(tmp_path / "out.mp4")[0]) == COUNT


def test_nobody_waits_for_ever(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.1)
    with running(FakeServer(script=[answer, *[failing(CODE.UNAVAILABLE, "restarting")] * 1000])) as server:
        words = [clip, "ball", "--save", tmp_path / "out.mp4", "--in-flight", "1", "--url", server.url]
        status, report, err = run(capsys, *words)
    assert (status, report["answered"]) == (1, 1)
    assert "restarting" in err


def test_nothing_is_written_before_a_server_has_answered(
    clip: Path, nobody: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report, err = run(capsys, clip, "ball", "--save", tmp_path / "out.mp4", "--url", nobody)
    assert (status, report) == (1, {})
    assert "no server" in err
    assert os.listdir(tmp_path) == []


def test_ctrl_c_leaves_a_whole_file(server: FakeServer, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    words = [sys.executable, "-m", "client.video", clip, "ball", "--save", out, "--url", server.url]
    stopped = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(server.asked) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    printed, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    frames, _, _ = read(out)
    assert json.loads(printed)["frames"] == len(frames) < COUNT
    assert err == f"python -m client.video: stopped ({len(frames)} frames are in {out})\n"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_the_report_comes_last(tmp_path: Path) -> None:
    """After Ctrl-C too, and it counts what was still in flight."""
    clip = make_clip(tmp_path / "long.mp4", count=30 * COUNT)
    with running(FakeServer(script=[answer] * 5 + [slowly] * COUNT)) as server:
        words = [sys.executable, "-m", "client.video", clip, "ball", "--in-flight", "4", "--url", server.url]
        stopped = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while len(server.asked) < 8 and stopped.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        stopped.send_signal(signal.SIGINT)
        printed, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, err) == (130, "python -m client.video: stopped\n")
    *answers, report = map(json.loads, printed.splitlines())
    assert report["asked"] == report["answered"] == len(answers)


def test_a_full_disk_leaves_nothing(server: FakeServer, clip: Path, tmp_path: Path) -> None:
    # prlimit and no preexec_fn, for the fake server's gRPC does not outlive a fork
    command = ["prlimit", "--fsize=4096", sys.executable, "-m", "client.video", clip, "ball"]
    command += ["--save", tmp_path / "out.mp4", "--url", server.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"python -m client.video: cannot write {tmp_path / 'out.mp4'}: File too large\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_videos_of_phones_are_turned_upright(tmp_path: Path, rotation: int) -> None:
    with File(make_clip(tmp_path / "phone.mp4", count=1, rotation=rotation)) as file:
        (frame,) = file.frames(threading.Event())
    w, h = SIZE
    # The disc of the first frame is around (30, 30) as stored.
    place = {90: (30, w - 30), -90: (h - 30, 30), 180: (w - 30, h - 30)}[rotation]
    assert frame.image.size == (SIZE if rotation == 180 else SIZE[::-1])
    red, _, blue = frame.image.getpixel(place)
    assert blue > 200 > 50 > red


def test_pixels_become_square(tmp_path: Path) -> None:
    with File(make_clip(tmp_path / "wide.mp4", count=1, pixel=Fraction(4, 3))) as file:
        (frame,) = file.frames(threading.Event())
    assert frame.image.size == (213, 120)


def test_odd_sizes_become_even(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (161, 121)).save(tmp_path / "odd.png")
    assert run(capsys, tmp_path / "odd.png", "ball", "--save", tmp_path / "out.mp4", "--url", server.url)[0] == 0
    ((frame,), _, _) = read(tmp_path / "out.mp4")
    assert frame.shape == (122, 162, 3)


def test_of_a_camera_the_newest_frame_is_taken() -> None:
    stop, slowest = threading.Event(), 0.2
    with Camera(Path(f"testsrc=size=160x120:rate={RATE},realtime"), "lavfi") as camera:
        numbers = []
        for frame in camera.frames(stop):
            numbers.append(frame.number)
            if len(numbers) == 4:
                stop.set()
            time.sleep(slowest)
    gaps = [after - before for before, after in itertools.pairwise(numbers)]
    assert min(gaps) > 1
    assert frame.image.size == SIZE


class NetworkCamera(BaseHTTPRequestHandler):
    """Pictures in one answer, as network cameras send them: at /live without end, elsewhere for a second, then none."""

    def do_GET(self) -> None:
        picture = io.BytesIO()
        Image.new("RGB", SIZE, "blue").save(picture, "JPEG")
        part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture.getvalue())
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever watched has left
            for _ in range(10**6 if self.path == "/live" else RATE):
                self.wfile.write(part + picture.getvalue() + b"\r\n")
                time.sleep(1 / RATE)
            time.sleep(5)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def network_camera() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), NetworkCamera) as listening:
        listening.daemon_threads = True
        listening.block_on_close = False
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_a_camera_may_be_on_the_network(network_camera: str) -> None:
    stop = threading.Event()
    with open_source(f"{network_camera}/live") as camera:
        for frame in camera.frames(stop):
            if frame.number > RATE:
                stop.set()
    assert frame.image.size == SIZE


def test_a_network_camera_that_falls_silent_is_said(
    server: FakeServer,
    tmp_path: Path,
    network_camera: str,
    nobody: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client.video.source._SILENCE", 2.0)
    (out := tmp_path / "out.mp4").touch()
    status, report, err = run(capsys, f"{network_camera}/short", "ball", "--save", out, "--url", server.url)
    assert status == 2
    assert "2 s" in err
    assert 0 < report["frames"] == len(read(out)[0])
    status, _, err = run(capsys, f"http://{nobody}/live", "ball", "--url", server.url)
    assert status == 2
    assert "Connection refused" in err


def test_a_camera_that_goes_away_is_said() -> None:
    short = Path(f"testsrc=size=160x120:rate={RATE}:duration=0.2,realtime")
    with Camera(short, "lavfi") as camera, pytest.raises(Refused, match="went away"):
        list(camera.frames(threading.Event()))


def test_a_video_that_is_cut_off_is_said_and_its_part_kept(
    server: FakeServer, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    status, report, err = run(capsys, cut, "ball", "--save", tmp_path / "out.mp4", "--url", server.url)
    assert status == 2
    assert "is cut off" in err
    frames, _, _ = read(tmp_path / "out.mp4")
    assert 0 < report["frames"] == len(frames) < COUNT


@pytest.mark.parametrize("name", ["short.mp4", "short.mkv"])
def test_a_video_may_come_from_a_pipe(tmp_path: Path, name: str) -> None:
    """Which has no size, so that nobody can tell whether it is cut off."""
    data = make_clip(tmp_path / name, count=3).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    with File(pipe) as source:
        assert len(list(source.frames(threading.Event()))) == 3
    writer.join()


def test_what_is_no_video_is_said_before_anything_is_asked(
    server: FakeServer, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    (tmp_path / "notes.mp4").write_text("no video")
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[:600])
    for source, says in [
        (tmp_path / "none.mp4", "no file"),
        (tmp_path, "is a folder"),
        (tmp_path / "sound.wav", "has no video"),
        (tmp_path / "notes.mp4", "it is no video"),
        (tmp_path / "half.mp4", "it is no video"),
        ("77", "no camera '/dev/video77'"),
        ("/dev/null", "cannot read '/dev/null'"),
    ]:
        status, _, err = run(capsys, source, "ball", "--url", server.url)
        assert status == 2
        assert says in err
    for save, says in [
        (tmp_path, "is a folder"),
        (tmp_path / "out.gif", ".mp4"),
        (tmp_path / "no" / "out.mp4", "no folder"),
        (clip, "overwrite the video itself"),
    ]:
        before = clip.read_bytes()
        status, _, err = run(capsys, clip, "ball", "--save", save, "--url", server.url)
        assert status == 2
        assert says in err
        assert clip.read_bytes() == before
    assert not server.asked


def test_pyav_is_needed_for_videos_only() -> None:
    without = "import sys, runpy; sys.modules['av'] = None; import client.cli, client.aio, client.batch; "
    ask = "sys.argv = ['video', 'clip.mp4', 'ball']; runpy.run_module('client.video', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", without + ask], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python -m client.video: PyAV is not installed: run `pip install '.[client,video]'`\n"

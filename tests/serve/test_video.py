"""`python -m client.video` against the real server."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from clips import COUNT, RATE, SIZE, make_clip, orange, read
from PIL import Image

from client import draw
from client.library import Client
from client.video import command

EXPRESSIONS = ["the blue circle", "star"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of video."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def as_asked(frame: np.ndarray) -> bytes:
    """The file that the command sends for a frame."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def grey(frame: np.ndarray) -> np.ndarray:
    """Brightness alone: compression keeps thin coloured lines in place, but not their colour."""
    return np.asarray(Image.fromarray(frame).convert("L"), float)


def adds_up(report: dict[str, float], frames: int) -> bool:
    """Whether the numbers of a run that ended by itself belong together."""
    assert report["median_milliseconds"] > 0
    assert report["frames_per_second"] == pytest.approx(frames / report["seconds"], rel=0.01)
    assert report["answers_per_second"] == pytest.approx(report["answered"] / report["seconds"], rel=0.01)
    return (
        report["frames"] == frames == report["asked"] + report["dropped"] and 0 < report["asked"] == report["answered"]
    )


def test_saved(url: str, client: Client, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output has the input's frames, times and size, and answers in all of them; the first has its own."""
    out = tmp_path / "out.mp4"
    assert command.main([str(clip), *EXPRESSIONS, "--save", str(out), "--url", url, "--timeout", "60"]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    assert adds_up(json.loads(printed), COUNT)  # the report is all that is printed
    given, given_times, _ = read(clip)
    frames, times, rate = read(out)
    assert (len(frames), rate) == (COUNT, RATE)
    assert times == pytest.approx(given_times, abs=1e-4)
    assert frames[0].shape == (*SIZE[::-1], 3)
    assert min(map(orange, frames)) > 100
    assert max(map(orange, given)) == 0
    answers = client.ground(as_asked(given[0]), EXPRESSIONS)
    expected = grey(np.asarray(draw.draw(Image.fromarray(given[0]), answers, "99.9 answers/s")))
    above = np.s_[:-24]  # without the rate, which differs
    assert np.abs(grey(frames[0]) - expected)[above].mean() < 4 < np.abs(grey(given[0]) - expected)[above].mean()
    assert sorted(tmp_path.iterdir()) == [out]


def test_printed(url: str, client: Client, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --save each answer is a line: its frame, when that was, and what the library answers about it."""
    assert command.main([str(clip), *EXPRESSIONS, "--url", url, "--timeout", "60"]) == 0
    *answered, report = map(json.loads, capsys.readouterr().out.splitlines())
    assert adds_up(report, COUNT)
    assert len(answered) == report["answered"]
    frames, times, _ = read(clip)
    for line in answered:
        assert line["time"] == pytest.approx(times[line["frame"]], abs=1e-3)
        assert line["milliseconds"] > 0
    for line in (answered[0], answered[-1]):
        expected = client.ground(as_asked(frames[line["frame"]]), EXPRESSIONS)
        assert [g["expression"] for g in line["groundings"]] == EXPRESSIONS
        assert [g["box"] for g in line["groundings"]] == [pytest.approx(g.box, abs=2e-3) for g in expected]

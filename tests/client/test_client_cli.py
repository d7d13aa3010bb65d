"""The command line: what it prints, what it saves, and how it ends."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fake_kserve import CODE, FakeServer, answer, answering, box_of, failing, presence_of, running, score_of, silence
from PIL import Image

from client import arguments, cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Image.new("RGB", (200, 150), "white").save(path)
    return path


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit status and the one line on stderr of a command that prints nothing else."""
    try:
        status = cli.main([str(word) for word in words])
    except SystemExit as ended:  # wrong usage
        status = int(str(ended.code))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("python -m client: "), err
    assert err.endswith("\n"), err
    assert err.count("\n") == 1, err
    return status, err


def test_the_table_is_aligned(server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(image), "the red ball", "cup", "左边的\x1b[0m", "--url", server.url]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["expression", "score", "there", "x1", "y1", "x2", "y2"]
    assert lines[1].split() == ["the", "red", "ball", "0.500", "75%", "0.5", "1.0", "20.0", "10.2"]
    assert len(lines[0]) == len(lines[1]) == len(lines[2])
    assert lines[3].startswith("左边的\\x1b[0m  0.250")
    assert len(lines[3]) == len(lines[0]) - 3  # three letters that take two columns each
    assert err == ""
    assert server.asked[0].image == image.read_bytes()


def test_json_parses(server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(image), "左边", "b", "--json", "--url", server.url, "--model", "gin_int8"]) == 0
    assert server.asked[0].model == "gin_int8"
    document = json.loads(capsys.readouterr().out)
    assert document["image"] == str(image)
    assert document["milliseconds"] > 0
    assert [g["expression"] for g in document["groundings"]] == ["左边", "b"]
    for n, grounding in enumerate(document["groundings"]):
        assert grounding["box"] == pytest.approx(box_of(n))
        assert grounding["score"] == pytest.approx(score_of(n), abs=1e-5)
        assert grounding["presence"] == pytest.approx(presence_of(n))
        assert grounding["found"] is (n == 0)
        assert not {"unknown", "others"} & set(grounding)


def test_words_that_the_network_does_not_know_are_said_once(
    server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(image), str(image), "the zebra", "cup", "zebra zoo", "--url", server.url]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 7
    assert err == "python -m client: the network does not know: zebra, zoo\n"
    assert cli.main([*words, "--json"]) == 0
    groundings = json.loads(capsys.readouterr().out.splitlines()[0])["groundings"]
    assert [g.get("unknown") for g in groundings] == [["zebra"], None, ["zebra", "zoo"]]


def test_the_next_best_boxes(server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(image), "ball", "--top-k", "2", "--url", server.url]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:3] == ["ball", "0.500", "75%"]
    assert rows[2] == ["or", "0.333", "1.5", "2.0", "21.0", "11.2"]
    assert cli.main([str(image), "ball", "--top-k", "2", "--json", "--url", server.url]) == 0
    (grounding,) = json.loads(capsys.readouterr().out)["groundings"]
    assert grounding["others"] == [{"box": list(box_of(1)), "score": pytest.approx(score_of(1), abs=1e-5)}]


@pytest.mark.parametrize("name", ["out.png", "out.JPG", "out.jpeg", "out.webp"])
def test_save_writes_the_upright_picture_with_boxes(
    server: FakeServer, tmp_path: Path, sideways: bytes, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "in.jpg").write_bytes(sideways)
    out = tmp_path / name
    out.write_bytes(b"an older file")
    assert cli.main([str(tmp_path / "in.jpg"), "ball", "--save", str(out), "--url", server.url]) == 0
    with Image.open(out) as saved, Image.open(io.BytesIO(sideways)) as given:
        assert saved.size == (40, 60)
        before = np.rot90(np.asarray(given), -1)
        assert (np.abs(np.asarray(saved.convert("RGB")).astype(int) - before).max(axis=2) > 60).sum() > 20
    assert sorted(os.listdir(tmp_path)) == sorted(["in.jpg", name])
    assert capsys.readouterr().out


def test_a_failed_save_leaves_the_older_file_and_the_printed_answer(
    server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_image: Image.Image, file: io.BufferedWriter, *_: object, **_options: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    older = image.with_name("out.png")
    older.write_bytes(b"older")
    monkeypatch.setattr(Image.Image, "save", full)
    assert cli.main([str(image), "ball", "--save", str(older), "--url", server.url]) == 2
    out, err = capsys.readouterr()
    assert "ball" in out
    assert "No space left on device" in err
    assert err.count("\n") == 1
    assert older.read_bytes() == b"older"
    assert sorted(os.listdir(image.parent)) == ["out.png", "scene.png"]


def test_a_pipe_among_several_images_is_read_once(
    server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = image.with_name("pipe")
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(image.read_bytes(),), daemon=True).start()
    drawn = image.with_name("drawn")
    assert cli.main([str(pipe), str(image), "ball", "--save", str(drawn), "--url", server.url]) == 0
    assert capsys.readouterr().err == ""
    assert sorted(os.listdir(drawn)) == ["pipe.png", "scene.png"]
    assert [asked.image for asked in server.asked] == [image.read_bytes()] * 2


def test_what_pillow_does_not_know_is_not_saved(
    server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image.write_bytes(b"the server may know more kinds of file")
    assert cli.main([str(image), "ball", "--save", str(image.with_name("out.png")), "--url", server.url]) == 2
    err = capsys.readouterr().err
    assert "Pillow does not know" in err
    assert err.count("\n") == 1


def test_damaged_exif_data_is_no_news(server: FakeServer, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("RGB", (200, 150)).save(tmp_path / "in.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0")
    assert cli.main([str(tmp_path / "in.jpg"), "ball", "--save", str(tmp_path / "out.png"), "--url", server.url]) == 0
    assert [str(warning.message) for warning in recwarn] == []


@pytest.fixture
def folder(tmp_path: Path, image: Path) -> Path:
    """A folder with three pictures, one of another name's kind."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("b.PNG", "a.png", "c.gif"):
        Image.new("RGB", (200, 150), "white").save(photos / name)
    return photos


def test_several_images_are_a_table_with_their_names(
    server: FakeServer, image: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{folder}/*.[pP]*", str(image), "ball", "cup.", "--url", server.url, "--save", str(folder / "drawn")]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    head, *rows = out.splitlines()
    assert head.split() == ["image", "expression", "score", "there", "x1", "y1", "x2", "y2"]
    named = [row.split()[:2] for row in rows]
    assert named == [
        [str(path), word] for path in (folder / "a.png", folder / "b.PNG", image) for word in ("ball", "cup.")
    ]
    assert len({len(line) for line in (head, *rows)}) == 1
    assert sorted(os.listdir(folder / "drawn")) == ["a.png", "b.PNG", "scene.png"]


def test_several_images_are_lines_of_json(
    server: FakeServer, image: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([str(folder / "*"), "ball", "--json", "--url", server.url]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["image"] for document in documents] == [str(folder / n) for n in ("a.png", "b.PNG", "c.gif")]


def test_one_bad_image_does_not_spoil_the_others(
    server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([str(image), "none.jpg", str(image), "ball", "--url", server.url]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err == "python -m client: none.jpg: no file 'none.jpg'\n"


def test_a_server_that_goes_away_keeps_what_was_answered(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = [answer, *[failing(CODE.INTERNAL, "gone")] * 9]
    with running(FakeServer(script=script)) as fake:
        words = [str(image)] * 3 + ["ball", "--in-flight", "1", "--url", fake.url]
        assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.count("\n") == 1


def test_attention_lights_up_where_the_network_looked(
    server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = np.zeros((1, 2, 2))
    maps[0, 1, 1] = 0.1  # the right bottom quarter
    server.script = [answering({"BOX": np.array([[0, 0, 9, 9]]), "SCORE": np.ones(1), "ATTENTION": maps})]
    out = image.with_name("out.png")
    assert cli.main([str(image), "ball", "--attention", "--save", str(out), "--url", server.url]) == 0
    with Image.open(out) as saved:
        light = np.asarray(saved.convert("L")).astype(float)
    assert light[140, 190] > 180
    assert light[100:, :60].max() < 120


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "IMAGE"),
        (["{image}"], "EXPRESSION"),
        (["missing.jpg", "a"], "no file 'missing.jpg'"),
        (["{folder}", "a"], "is a folder"),
        (["{image}", "a", "--save", "{folder}"], "overwrite"),
        (["{image}", "a", "--save", "{folder}/out.gif"], ".png"),
        (["{image}", "a", "--save", "{folder}/none/out.png"], "no folder"),
        (["{image}", "a", "--save", "/proc/out.png"], "cannot write into /proc"),
        (["{image}", "a", "--save", "{image}"], "overwrite"),
        (["{image}", "a", "--save", "{folder}/notes"], "a folder or a name ending in .png"),
        (["{image}", "{image}", "a", "--save", "{folder}/notes"], "give a folder"),
        (["{image}", "a", "--attention"], "--save"),
        (["{image}", "a", "--in-flight", "0"], "1 to 256"),
        (["{image}", "a", "--url", "ftp://localhost:8001"], "HOST:PORT"),
        (["{image}", "a", "--url", "grpcs://localhost:8001", "--ca", "{image}"], "as authority"),
        (["{image}", "a", "--url", "grpcs://localhost:8001", "--ca", "none.pem"], "No such file"),
        (["{image}", "a", "--url", "https://localhost:8000", "--key", "none.pem"], "go together"),
        (["{folder}/*.tiff", "a"], "no file matches"),
        (["{image}", "b.jpg", "a", "--save", "{folder}/out.png"], "give a folder"),
        (["{image}", "none/scene.png", "a", "--save", "{folder}/out"], "both be saved"),
        (["{image}", "a", "--timeout", "soon"], "seconds"),
        (["{image}", "a", "--timeout", "0"], "seconds"),
        (["{image}", "a", "--timeout", "nan"], "seconds"),
        (["{image}", "a", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_said_before_the_server_is_asked(
    server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    (image.parent / "notes").write_text("a file")
    words = [word.format(image=image, folder=image.parent) for word in words]
    url = [] if "--url" in words else ["--url", server.url]
    status, err = fails(capsys, *words, *url)
    assert status == 2
    assert says in err
    assert not server.asked


def test_each_failure_has_its_status_and_line(
    server: FakeServer, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = "in ensemble 'gin', out of memory\nAt:\n  model.py(3)"
    for code, status, says in [
        (CODE.INVALID_ARGUMENT, 2, "python -m client: out of memory\n"),
        (CODE.INTERNAL, 1, "failed (out of memory): its log says more"),
        (CODE.UNAVAILABLE, 1, "cannot answer now (out of memory): try again later"),
    ]:
        server.script = [failing(code, broken)] * 3
        got, err = fails(capsys, image, "a", "--url", server.url)
        server.script.clear()
        assert got == status
        assert says in err


def test_no_server_and_no_answer(
    server: FakeServer, image: Path, nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, err = fails(capsys, image, "a", "--url", nobody)
    assert status == 1
    assert f"no server at {nobody}: start one with `python -m serve`" in err
    server.script = [silence]
    status, err = fails(capsys, image, "a", "--url", server.url, "--timeout", "0.2")
    assert status == 1
    assert "within 0.2 s" in err


def test_a_defect_is_one_line_too(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "Client", lambda *_, **__: 1 / 0)
    status, err = fails(capsys, image, "a")
    assert status == 1
    assert "ZeroDivisionError" in err


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "client", *map(str, words)]


def wait_until_asked(server: FakeServer) -> None:
    until = time.monotonic() + 20
    while not server.asked and time.monotonic() < until:
        time.sleep(0.01)


def test_help_names_everything() -> None:
    done = subprocess.run(command("--help"), cwd=ROOT, capture_output=True, text=True, check=True)
    for word in ("IMAGE", "EXPRESSION", "--json", "--save", "--url", "--timeout", "127.0.0.1:8001"):
        assert word in done.stdout


def test_letters_that_the_terminal_lacks_do_no_harm(server: FakeServer, image: Path) -> None:
    words = command(image, "左边", "--url", server.url)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u5de6\u8fb9" in done.stdout


def test_bytes_that_are_no_text_reach_the_server(server: FakeServer, image: Path) -> None:
    server.script = [failing(CODE.INVALID_ARGUMENT, "EXPRESSION 1 is not UTF-8")]
    words = [word.encode() for word in command(image, "--url", server.url)]
    done = subprocess.run([*words, b"caf\xe9"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "python -m client: EXPRESSION 1 is not UTF-8\n")
    assert server.asked[0].expressions == [b"caf\xe9"]


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_what_the_shell_has_closed_is_written_to_nobody(server: FakeServer, image: Path, closed: str) -> None:
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(image, image, "a", "--url", server.url)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(" a ") == (0 if "1" in closed else 2)
    assert len(server.asked) == 2


def test_a_reader_that_left_is_no_failure_to_shout_about(server: FakeServer, image: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    words = command(image, "a", "--url", server.url)
    done = subprocess.run(words, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_interrupt_is_one_line(server: FakeServer, image: Path) -> None:
    server.script = [silence]
    words = command(image, "a", "--url", server.url, "--timeout", "30")
    asking = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until_asked(server)
    asking.send_signal(signal.SIGINT)
    assert asking.communicate(timeout=60) == ("", "python -m client: stopped\n")
    assert asking.returncode == 130


def test_an_interrupt_ends_the_reading_of_a_pipe(server: FakeServer, image: Path) -> None:
    """Among several images too."""
    pipe = image.with_name("pipe")
    os.mkfifo(pipe)
    words = command(pipe, image, "a", "--url", server.url)
    asking = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with pipe.open("wb"):
        state = Path(f"/proc/{asking.pid}/stat")
        # Before it waits for what is written, Python would take note of the signal and then wait for ever.
        while asking.poll() is None and state.read_text().rsplit(")", 1)[1].split()[0] != "S":
            time.sleep(0.01)
        asking.send_signal(signal.SIGINT)
        assert asking.communicate(timeout=30) == ("", "python -m client: stopped\n")
    assert asking.returncode == 130


def test_a_server_that_dies_meanwhile_is_one_line(image: Path) -> None:
    with running(FakeServer(script=[silence])) as fake:
        words = command(image, "a", "--url", fake.url, "--timeout", "30")
        asking = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until_asked(fake)
    out, err = asking.communicate(timeout=20)
    assert (asking.returncode, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith("python -m client: ")

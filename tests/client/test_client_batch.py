"""Batches: answers in order, kept whatever happens, and gone on with by the same command."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_kserve import CODE, FakeServer, answer, box_of, failing, running, silence

from client import batch

ROOT = Path(__file__).parents[2]
COUNT = 12


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A file of questions about one picture, with an empty line in it."""
    (tmp_path / "x.jpg").write_bytes(b"x")
    lines = [json.dumps({"image": str(tmp_path / "x.jpg"), "expressions": [f"thing {n}", "左"]}) for n in range(COUNT)]
    (tmp_path / "questions.jsonl").write_text("\n".join([*lines[:3], "", *lines[3:]]), encoding="utf-8")
    return tmp_path / "questions.jsonl"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit status and what is on stderr; nothing is on stdout, ever."""
    try:
        status = batch.main([str(word) for word in words])
    except SystemExit as ended:
        status = int(str(ended.code))
    out, err = capsys.readouterr()
    assert out == ""
    return status, err


def first_expressions(answers: Path) -> list[str]:
    return [json.loads(line)["groundings"][0]["expression"] for line in answers.read_text().splitlines()]


EXPECTED = [f"thing {n}" for n in range(COUNT)]


def test_answers_are_in_order(server: FakeServer, questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = questions.with_name("answers.jsonl")
    assert run(capsys, questions, answers, "--url", server.url) == (0, "")
    assert first_expressions(answers) == EXPECTED
    assert json.loads(answers.read_text().splitlines()[0])["groundings"][1]["box"] == pytest.approx(box_of(1))


def test_a_server_that_goes_away_is_come_back_to(questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = questions.with_name("answers.jsonl")
    with running(FakeServer(script=[answer] * 5 + [failing(CODE.INTERNAL, "out of memory")] * 9)) as broken:
        status, err = run(capsys, questions, answers, "--url", broken.url, "--in-flight", "1")
    assert (status, err.count("\n")) == (1, 1)
    assert "out of memory" in err
    assert "5 of 12" in err
    status, err = run(capsys, questions, answers, "--url", broken.url)  # nobody is there now
    assert "no server" in err
    assert first_expressions(answers) == EXPECTED[:5]
    answers.write_bytes(answers.read_bytes() + json.dumps({"image": str(questions.with_name("x.jpg"))})[:-3].encode())
    with running(FakeServer()) as server:
        assert run(capsys, questions, answers, "--url", server.url) == (0, "")
        assert len(server.asked) == COUNT - 5
        assert first_expressions(answers) == EXPECTED
        assert run(capsys, questions, answers, "--url", server.url) == (0, "")
        assert len(server.asked) == COUNT - 5  # all were there


BUSY = failing(CODE.UNAVAILABLE, "maximum queue size reached; ask again later")


def test_a_server_that_is_away_for_a_while_is_waited_for(
    questions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It restarts, or others ask too much, long enough for the client's own tries to end."""
    monkeypatch.setattr(batch, "PAUSE", 0.01)
    answers = questions.with_name("answers.jsonl")
    with running(FakeServer(script=[answer] * 5 + [BUSY] * 40)) as server:
        assert run(capsys, questions, answers, "--url", server.url) == (0, "")
    assert first_expressions(answers) == EXPECTED


@pytest.mark.parametrize(("before", "patience"), [(0, 60.0), (5, 0.1)])
def test_nobody_waits_for_ever(
    before: int,
    patience: float,
    questions: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a server that has never answered, not at all."""
    monkeypatch.setattr(batch, "PAUSE", 0.01)
    monkeypatch.setattr(batch, "PATIENCE", patience)
    answers = questions.with_name("answers.jsonl")
    with running(FakeServer(script=[answer] * before + [BUSY] * 10_000)) as server:
        status, err = run(capsys, questions, answers, "--url", server.url, "--in-flight", "1")
    assert status == 1
    assert f"maximum queue size reached; ask again later): try again later ({before} of 12 are in" in err
    assert len(server.asked) < 1_000


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_keeps_what_it_has(questions: Path, sent: int, status: int) -> None:
    answers = questions.with_name("answers.jsonl")
    with running(FakeServer(script=[answer] * 4 + [silence] * 4)) as server:
        words = [sys.executable, "-m", "client.batch", questions, answers, "--url", server.url, "--timeout", "60"]
        # one at a time, so that the first four questions are those that are answered
        stopped = subprocess.Popen([*words, "--in-flight", "1"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not (answers.exists() and answers.read_bytes().count(b"\n") == 4) and time.monotonic() < until:
            time.sleep(0.02)
        stopped.send_signal(sent)
        err = stopped.communicate(timeout=60)[1]
        assert stopped.returncode == status
        assert first_expressions(answers) == EXPECTED[:4]
        if status == 130:
            assert err.startswith("python -m client.batch: stopped (4 of 12 are in")
            assert err.count("\n") == 1


def test_a_second_run_leaves_the_file_to_the_first(questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = questions.with_name("answers.jsonl")
    with running(FakeServer(script=[answer] * 4 + [silence] * 4)) as server:
        words = [sys.executable, "-m", "client.batch", questions, answers, "--url", server.url, "--timeout", "60"]
        first = subprocess.Popen([*words, "--in-flight", "1"], cwd=ROOT, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not (answers.exists() and answers.read_bytes().count(b"\n") == 4) and time.monotonic() < until:
            time.sleep(0.02)
        status, err = run(capsys, questions, answers, "--url", server.url)
        assert status == 2
        assert err == f"python -m client.batch: another run writes {answers}: wait for its end, or give another name\n"
        first.kill()
        first.wait(60)
    with running(FakeServer()) as server:
        assert run(capsys, questions, answers, "--url", server.url) == (0, "")
    assert first_expressions(answers) == EXPECTED


def test_refusals_are_noted_and_not_asked_again(
    server: FakeServer, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = questions.with_name("answers.jsonl")
    lines = questions.read_text().splitlines()
    questions.write_text("\n".join([*lines, json.dumps({"image": "none.jpg", "expressions": ["a"]}), lines[0]]))
    for _ in range(2):
        status, err = run(capsys, questions, answers, "--url", server.url)
        assert status == 2
        assert "1 of 14 were refused" in err
        assert len(server.asked) == COUNT + 1
    assert json.loads(answers.read_text().splitlines()[-2])["error"] == "no file 'none.jpg'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no question"),
        ("\n \n", "no question"),
        ('{"image": "a"', "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('\n{"image": "a"}', "line 2: expected"),
        ('{"image": "a", "expressions": []}', "line 1: expected"),
        ('{"image": "a", "expressions": "b"}', "line 1: expected"),
        ('{"image": "a", "expressions": [1]}', "are texts"),
        ("[]", "line 1: expected"),
        ("caf\udce9", "not text in UTF-8"),
    ],
)
def test_bad_files_are_said_before_anything_is_asked(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (tmp_path / "q.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    status, err = run(capsys, tmp_path / "q.jsonl", tmp_path / "a.jsonl", "--url", server.url)
    assert (status, err.count("\n")) == (2, 1)
    assert says in err
    assert not server.asked
    assert not (tmp_path / "a.jsonl").exists()


def test_files_of_others_are_left_alone(
    server: FakeServer, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = questions.with_name("other.jsonl")
    wrong = json.dumps({"image": "else.jpg", "groundings": [{"expression": "a"}]}) + "\n"
    texts = [(f"{note}\n", "holds no answers") for note in ("notes", "[" * 100_000)]
    texts += [(wrong, "answers other questions"), ("a note", "is no answer")]
    for text, says in texts:
        other.write_text(text)
        status, err = run(capsys, questions, other, "--url", server.url)
        assert status == 2
        assert says in err
        assert other.read_text() == text
    for name, says in [(questions, "overwrite"), (questions.parent, "is a folder"), (Path("/no/a.jsonl"), "no folder")]:
        status, err = run(capsys, questions, name, "--url", server.url)
        assert status == 2
        assert says in err
    assert "cannot read" in run(capsys, "none.jsonl", other)[1]


def test_answers_go_into_a_file_only(server: FakeServer, questions: Path) -> None:
    """Reading a pipe, to see what is answered already, would never end."""
    pipe = questions.with_name("pipe")
    os.mkfifo(pipe)
    words = [sys.executable, "-m", "client.batch", questions, pipe, "--url", server.url]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"python -m client.batch: {pipe} is a pipe or a device: give a file name\n"
    assert not server.asked


def test_letters_that_look_like_line_ends(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.jpg").write_bytes(b"x")
    asked = {"image": str(tmp_path / "x.jpg"), "expressions": ["the blue\u2028heart\u0085"]}
    (tmp_path / "q.jsonl").write_text(json.dumps(asked, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert run(capsys, tmp_path / "q.jsonl", tmp_path / "a.jsonl", "--url", server.url) == (0, "")
    assert first_expressions(tmp_path / "a.jsonl") == asked["expressions"]


def test_a_full_disk_is_said_in_one_line(server: FakeServer, questions: Path) -> None:
    answers = questions.with_name("answers.jsonl")
    command = ["prlimit", "--fsize=1000", sys.executable, "-m", "client.batch", questions, answers, "--url", server.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "File too large" in done.stderr
    assert "the same command goes on" in done.stderr


def test_a_terminal_sees_progress(server: FakeServer, questions: Path) -> None:
    controller, terminal = pty.openpty()
    words = [sys.executable, "-m", "client.batch", questions, questions.with_name("a.jsonl"), "--url", server.url]
    subprocess.run(words, cwd=ROOT, stderr=terminal, check=True)
    shown = os.read(controller, 10_000).decode()
    for descriptor in (controller, terminal):
        os.close(descriptor)
    assert "12/12 [========================]" in shown
    assert "/s, 0 s left" in shown
    assert shown.endswith("\r\x1b[K")

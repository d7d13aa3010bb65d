"""Generated scenes: reproducible, unambiguous, and never decided by one word."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from train.data.check import check_annotations
from train.data.drawing import FINE, draw_thing
from train.data.expressions import Group, Meaning
from train.data.scenes import main, make_absent, make_scene, write_scenes
from train.data.wording import KINDS, describe
from train.data.world import COLOURS, COUNTS, SHAPES, SIZES, Scene, Thing, lay_out

Described = list[tuple[str, Meaning, Thing]]


@pytest.fixture(scope="module")
def described() -> list[tuple[Scene, Described]]:
    """A hundred scenes with eight expressions each."""
    found = []
    for number in range(400):
        random = np.random.default_rng([11, number])
        scene = lay_out(random)
        expressions = describe(scene, 8, random) if len(scene.things) >= COUNTS[0] else None
        if expressions is not None:
            found.append((scene, expressions))
    assert len(found) >= 100
    return found


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C at a terminal, which reaches the workers too, ends it at once in one line; nothing passes for complete."""
    command = [sys.executable, "-m", "train.data.scenes", "--out", str(tmp_path), "--count", "100000", "--seed", "0"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(tmp_path.glob("images/*.jpg")):
        assert started.poll() is None
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGINT)
    assert started.communicate(timeout=60) == (None, "python -m train.data.scenes: interrupted\n")
    assert started.returncode == 130
    assert not list(tmp_path.glob("*.csv"))


def test_a_killed_command_leaves_no_process(tmp_path: Path) -> None:
    """The processes that draw end with the one that asked them to, which could not tell them."""
    command = [sys.executable, "-m", "train.data.scenes", "--out", str(tmp_path), "--count", "100000", "--seed", "0"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE)
    while not list(tmp_path.glob("images/*.jpg")):
        assert started.poll() is None
        time.sleep(0.1)
    started.kill()
    started.communicate(timeout=60)  # returns once nobody holds the pipe any more


def test_same_seed_same_files(tmp_path: Path) -> None:
    """The files depend on the seed alone, not on how many processes wrote them."""
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    write_scenes(one, 6, seed=1, workers=1)
    write_scenes(two, 6, seed=1, workers=2)
    write_scenes(other, 6, seed=2, workers=1)
    for path in one.rglob("*.*"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()
    assert (one / "scenes.csv").read_text() != (other / "scenes.csv").read_text()


def test_rows_are_sound(tmp_path: Path) -> None:
    """Boxes lie in their pictures, and each row has another row of its picture with another box."""
    rows, problems = check_annotations(write_scenes(tmp_path, 20, seed=4), tmp_path / "images", max_words=50)
    assert not problems
    assert len(rows) == 80
    for row in rows:
        assert any(other.image == row.image and other.box != row.box for other in rows)


def test_one_right_answer(described: list[tuple[Scene, Described]]) -> None:
    """An expression's meaning, evaluated again, picks exactly the thing that its row names."""
    for scene, expressions in described:
        for _, meaning, thing in expressions:
            assert meaning.pick(scene) == thing


def test_absent_is_absent() -> None:
    """Where an expression names one shape, colour and size at most, no thing of the scene has them all."""
    checked = 0
    for number in range(60):
        scene, _, _ = make_scene(11, number, 4)
        for expression in make_absent(scene, 11, number, 4):
            words = set(expression.split())
            named = [words & set(known) for known in (SHAPES, COLOURS, SIZES)]
            if all(len(values) <= 1 for values in named):
                checked += 1
                group = Group(*(next(iter(values), None) for values in reversed(named)))
                assert not group.of(scene), expression
    assert checked > 60


def test_all_kinds_occur(described: list[tuple[Scene, Described]]) -> None:
    """Attributes, positions, relations, ordinals and superlatives all occur, each in its share."""
    kinds = [meaning.kind for _, expressions in described for _, meaning, _ in expressions]
    for kind in KINDS:
        assert kinds.count(kind) / len(kinds) > 0.03, kind


def things_of_word(word: str, scene: Scene) -> list[Thing] | None:
    """What a word picks when applied to everything; None for words that pick nothing by themselves."""
    by_x = sorted(scene.things, key=lambda thing: thing.centre[0])
    by_y = sorted(scene.things, key=lambda thing: thing.centre[1])
    by_extent = sorted(scene.things, key=lambda thing: thing.extent)
    if word in SHAPES:
        return Group(shape=word).of(scene)
    if word in COLOURS:
        return Group(colour=word).of(scene)
    if word in SIZES:
        return Group(size=word).of(scene)
    extremes = {"leftmost": by_x[0], "rightmost": by_x[-1], "topmost": by_y[0], "lowest": by_y[-1]}
    extremes |= {"largest": by_extent[-1], "biggest": by_extent[-1]}
    extremes |= {"smallest": by_extent[0], "littlest": by_extent[0]}
    return [extremes[word]] if word in extremes else None


def test_no_word_decides(described: list[tuple[Scene, Described]]) -> None:
    """No word of the part that names the target picks the target alone."""
    for scene, expressions in described:
        for words, meaning, thing in expressions:
            reference = meaning.reference
            named_by_reference = {reference.size, reference.colour, reference.shape} if reference else set()
            for word in words.split():
                if word not in named_by_reference:
                    assert things_of_word(word, scene) != [thing], words


def test_boxes_are_tight() -> None:
    """A thing drawn alone fills its box to within a pixel."""
    for shape in SHAPES:
        thing = Thing(shape, "red", "large", (20, 30, 85, 100))
        picture = Image.new("RGB", (120 * FINE, 130 * FINE), "white")
        draw_thing(ImageDraw.Draw(picture), thing, COLOURS["red"])
        drawn = (np.asarray(picture.reduce(FINE)) < 200).any(axis=2)
        ys, xs = np.nonzero(drawn)
        found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.abs(np.subtract(found, thing.box)).max() <= 1, shape


@pytest.mark.parametrize(
    "arguments", [["--count", "0", "--seed", "1"], ["--count", "2", "--seed", "-1"], ["--count", "2", "--seed", "x"]]
)
def test_bad_arguments(tmp_path: Path, arguments: list[str]) -> None:
    """Bad arguments end with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["--out", str(tmp_path), *arguments])
    assert ended.value.code == 2


def test_existing_scenes_stay(tmp_path: Path) -> None:
    """A folder that has scenes is left alone, in one line, with exit code 2."""
    command = [sys.executable, "-m", "train.data.scenes", "--out", tmp_path, "--count", "2", "--seed", "1"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    before = (tmp_path / "scenes.csv").read_bytes()
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1
    assert (tmp_path / "scenes.csv").read_bytes() == before

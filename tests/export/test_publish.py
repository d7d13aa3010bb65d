"""Files come into a folder one export at a time, and are believed when all of them are there."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from export.manifest import MANIFEST, read_manifest, write_manifest
from export.publish import publish, staging


def test_one_export_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second export into a folder says that it waits, leaves the first one's files alone and then has its turn; what
    a killed one left is removed, and no lock stays behind."""
    (tmp_path / ".export-killed").mkdir()
    waiting, steps = threading.Event(), []

    def say(step: str) -> None:
        steps.append(step)
        waiting.set()

    def second() -> None:
        with staging(tmp_path):
            steps.append("second")

    monkeypatch.setattr("export.publish.say", say)
    thread = threading.Thread(target=second)
    with staging(tmp_path) as folder:
        (folder / "file").touch()
        thread.start()
        assert waiting.wait(60)
        assert list(tmp_path.rglob("*")) == [folder, folder / "file"]
        steps.append("first")
    thread.join(60)
    assert steps == [f"waiting for another export into {tmp_path}", "first", "second"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exported", ["torchscript"], indirect=True)
def test_the_manifest_comes_last(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two files, what lies there is not believed: the manifest is the former one or none. Before, what a
    former export left there goes; what was never exported stays."""
    staged, target = tmp_path / "staged", tmp_path / "target"
    shutil.copytree(exported, staged)
    target.mkdir()
    for name in ("gin.former", "notes.txt", "vocabulary.json"):
        (target / name).write_text("former")
    write_manifest(target, {}, {})
    former = json.loads((target / MANIFEST).read_text())
    del former["files"]["notes.txt"]
    (target / MANIFEST).write_text(json.dumps(former))
    moved: list[str] = []
    replace = os.replace

    def watched(one: Path, other: Path) -> None:
        moved.append(one.name)
        assert (target / "gin.former").exists() == (one.name != MANIFEST)
        replace(one, other)

    monkeypatch.setattr("export.publish.os.replace", watched)
    publish(staged, target)
    assert moved[-1] == MANIFEST
    assert set(moved) == {path.name for path in exported.iterdir()}
    assert {path.name for path in target.iterdir()} == {*moved, "notes.txt"}
    assert read_manifest(target)

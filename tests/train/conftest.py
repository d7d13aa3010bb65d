"""Scenes for runs of the training command, and a run that nothing happens to."""

from pathlib import Path

import pytest

from tests.train.runs import run


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of a file find their scenes."""
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def untouched(request: pytest.FixtureRequest, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to, on as many processes as the file's PROCESSES says."""
    folder = tmp_path_factory.mktemp("untouched") / "run"
    done = run(scenes, folder, processes=request.module.PROCESSES)
    assert done.returncode == 0, done.stderr
    return folder

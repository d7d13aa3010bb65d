"""The operations that the documentation names are those that the network has."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The script, which finds its neighbours as Python lets scripts find them."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    main = import_module("operations").main
    return lambda *arguments: main([str(argument) for argument in arguments])


def test_the_record_holds(run: Callable[..., int], tmp_path: Path) -> None:
    """Counting again gives the committed numbers."""
    assert run("--record", tmp_path / "new" / "operations.json") == 0
    counted, committed = (
        json.loads((folder / "operations.json").read_text())
        for folder in (tmp_path / "new", ROOT / "benchmarks" / "results")
    )
    assert counted["multiply_accumulates"] == committed["multiply_accumulates"]


@pytest.mark.parametrize("size", ["100", "many"])
def test_a_size_that_is_none(run: Callable[..., int], size: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named."""
    with pytest.raises(SystemExit) as stopped:
        run("--size", size)
    assert stopped.value.code == 2
    assert size in capsys.readouterr().err


def test_a_record_that_cannot_be_written(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named before anything is measured."""
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        run("--record", tmp_path / "file" / "operations.json")
    assert stopped.value.code == 2
    assert str(tmp_path / "file") in capsys.readouterr().err

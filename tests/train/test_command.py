"""How the commands end."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from train import calibrate, evaluate, plot
from train.data import check
from train.data.prepare import __main__ as prepare

COMMANDS = {  # by name: what runs it, its arguments, what it calls first
    "train.evaluate": (evaluate, "predictions.jsonl rows.csv", "read_predictions"),
    "train.calibrate": (calibrate, "best.pth rows.csv --images DIR", "Checkpoint.load"),
    "train.plot": (plot, "RUN", "read_history"),
    "train.data.check": (check, "rows.csv --images DIR", "check_annotations"),
    "train.data.prepare": (prepare, "refcoco --source DIR --out OUT", "prepare"),
}


ENDINGS = (  # what is raised, the exit code, what is said
    (KeyboardInterrupt(), 130, "interrupted"),
    (ValueError("odd"), 2, "odd"),
    (OSError("exists already"), 2, "exists already"),
    (OSError(28, "best.pth could not be written"), 2, "best.pth could not be written"),
    (FileNotFoundError(2, "No such file or directory", Path("best.pth")), 2, "no file 'best.pth'"),
    (IsADirectoryError(21, "Is a directory", "best.pth"), 2, "best.pth: Is a directory"),
)


@pytest.mark.parametrize(("error", "code", "said"), ENDINGS)
@pytest.mark.parametrize("name", COMMANDS)
def test_endings(
    name: str, error: BaseException, code: int, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Ctrl-C and what the user can mend are told in one line."""
    module, arguments, called = COMMANDS[name]
    monkeypatch.setattr(f"{module.__name__}.{called}", Mock(side_effect=error))
    assert module.main(arguments.split()) == code
    assert capsys.readouterr().err == f"{name}: {said}\n"

"""How the commands end."""

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


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError("full"), 2), (ValueError("odd"), 2)])
@pytest.mark.parametrize("name", COMMANDS)
def test_endings(
    name: str, error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C and what the user can mend are told in one line."""
    module, arguments, called = COMMANDS[name]
    monkeypatch.setattr(f"{module.__name__}.{called}", Mock(side_effect=error))
    assert module.main(arguments.split()) == code
    assert capsys.readouterr().err == f"{name}: {str(error) or 'interrupted'}\n"

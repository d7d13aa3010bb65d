"""How the commands end."""

from importlib import import_module
from pathlib import Path
from unittest.mock import Mock

import pytest

COMMANDS = (  # what is run, with arguments, and what it calls first
    ("model.convert ORIGINAL OUT", "model.convert.convert"),
    ("train.evaluate /dev/null rows.csv", "train.evaluate.read_predictions"),
    ("train.calibrate best.pth rows.csv --images DIR", "train.calibrate.Checkpoint.load"),
    ("train.plot RUN", "train.plot.read_history"),
    ("train.data.check rows.csv --images DIR", "train.data.check.check_annotations"),
    ("train.data.prepare refcoco --source DIR --out OUT", "train.data.prepare.__main__.prepare"),
    ("train.data.scenes --out DIR --count 1 --seed 0", "train.data.scenes.write_scenes"),
    ("export.onnx CKPT", "export.command.read_checkpoint"),
    ("export.torchscript CKPT", "export.command.read_checkpoint"),
    ("export.aot CKPT --out DIR", "export.command.read_checkpoint"),
    ("export.check DIR", "export.check.verify"),
)
ENDINGS = (  # what is raised, the exit code, what is said
    (KeyboardInterrupt(), 130, "interrupted"),
    (ValueError("odd"), 2, "odd"),
    (OSError("exists already"), 2, "exists already"),
    (OSError(28, "best.pth could not be written"), 2, "best.pth could not be written"),
    (FileNotFoundError(2, "No such file or directory", Path("best.pth")), 2, "no file 'best.pth'"),
    (IsADirectoryError(21, "Is a directory", "best.pth"), 2, "best.pth: Is a directory"),
)


@pytest.mark.parametrize(("error", "code", "said"), ENDINGS)
@pytest.mark.parametrize(("command", "called"), COMMANDS)
def test_endings(
    command: str, called: str, error: BaseException, code: int, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Ctrl-C and what the user can mend are told in one line."""
    name, *arguments = command.split()
    package = name == "train.data.prepare"
    module = import_module(f"{name}.__main__" if package else name)
    monkeypatch.setattr(called, Mock(side_effect=error))
    assert module.main(arguments) == code
    assert capsys.readouterr().err == f"python -m {name}: {said}\n"

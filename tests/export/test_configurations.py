"""What an export does to the configurations of the models that it fills."""

from pathlib import Path

import pytest

from export.configurations import CONFIG, LENGTHS, WARM_UPS, render, update_configuration


@pytest.mark.parametrize("kind", ["gin", "gin_onnx", "gin_torchscript"])
def test_a_new_model(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is configured under its folder's name; with its warm-up data, where it has any."""
    folder = tmp_path / f"{kind}_fp16"
    update_configuration(folder, kind, 64)
    assert (folder / CONFIG).read_text() == render(folder.name, kind, 64)
    names = {f"warmup/{LENGTHS.format(count)}" for count in WARM_UPS} if kind != "gin" else set()
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {CONFIG, *names}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["gin_onnx", "gin_torchscript"])
def test_another_size(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration as it was written follows the export."""
    for size in (64, 96):
        update_configuration(tmp_path / kind, kind, size)
        assert (tmp_path / kind / CONFIG).read_text() == render(kind, kind, size)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("gin", '"0.5"', '"0.9"'),
        ("gin_onnx", "count: 2", "count: 4"),
        ("gin_torchscript", "1, 64, 64, 3", "1, 32, 64, 3"),
    ],
)
def test_an_edited_one(kind: str, old: str, new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is kept, and said to be where the export could ask for a change."""
    path = tmp_path / kind / CONFIG
    update_configuration(tmp_path / kind, kind, 64)
    edited = path.read_text().replace(old, new)
    assert edited != path.read_text()
    path.write_text(edited)
    update_configuration(tmp_path / kind, kind, 96)
    assert path.read_text() == edited
    said = f"{path} was edited and is kept; it has to be for images of 96 pixels\n"
    assert capsys.readouterr().err == ("" if kind == "gin" else said)

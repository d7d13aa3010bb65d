"""Configuration files and overrides."""

from pathlib import Path

import pytest

from train.arguments import build_parser, parse_arguments
from train.config import ResizedConfig
from train.run import stages

CONFIGS = Path(__file__).parents[2] / "configs"
DATASETS = sorted(path for path in CONFIGS.glob("*.yaml") if path.stem not in ("demo", "ablation"))


@pytest.mark.parametrize(
    ("argument", "cause"),
    [
        ("optim.epochz=3", "optim.epochz"),
        ("optim.epochs=many", "optim.epochs"),
        ("model.image_size=100", "multiple of 32"),
        ("model.backbone=resnet5", "backbone is 'resnet5'; known: resnet18"),
        ("model.resize_filter=lanczos", "resize_filter is 'lanczos'"),
        ("loss.classification=focus", "focal, binary, softmax"),
        ("data.train=a.csv", "data.val"),
        ("--config=nowhere.yaml", "nowhere.yaml"),
        ("data.augment.flip=2", "augment.flip is 2"),
        ("data.on_error=ignore", "stop, skip"),
        ("optim.schedule=constant", "plateau, cosine, published"),
        ("optim.warmup=1", "optim.warmup is 1"),
        ("optim.accumulate=0", "optim.accumulate is 0"),
        ("resized.epochs=many", "resized"),
        ("save_every=0", "save_every is 0"),
        ("timeout=0", "timeout is 0"),
        ("seed=-1", "seed is -1"),
        ("optim.lr=0", "optim.lr is 0"),
        ("optim.lr=.nan", "optim.lr is nan"),
        ("optim.weight_decay=-1", "optim.weight_decay is -1"),
        ("optim.clip_norm=-1", "optim.clip_norm is -1"),
        ("optim.backbone_lr=-1", "optim.backbone_lr is -1"),
        ("data.scenes.train=0", "data.scenes.train is 0"),
        ("data.scenes.val=0", "data.scenes.val is 0"),
        ("data.scenes.seed=-1", "data.scenes.seed is -1"),
        ("data.scenes.expressions=1", "data.scenes.expressions is 1"),
        ("data.scenes.expressions=13", "data.scenes.expressions is 13"),
        ("resized.epochs=0", "resized.epochs is 0"),
        ("optim.lr=.inf", "optim.lr is inf"),
        ("optim.weight_decay=.inf", "optim.weight_decay is inf"),
        ("timeout=.inf", "timeout is inf"),
        ("optim.patience=-1", "optim.patience is -1"),
        ("optim.betas=[0.9, 1.5]", "optim.betas are [0.9, 1.5]"),
        ("data.workers=-1", "data.workers is -1"),
        ("loss.positive_iou=60", "loss.positive_iou is 60"),
        ("loss.focal_alpha=-0.25", "loss.focal_alpha is -0.25"),
        ("loss.focal_gamma=.nan", "loss.focal_gamma is nan"),
        ("loss.box_weight=-1", "loss.box_weight is -1"),
        ("loss.attention_weight=.inf", "loss.attention_weight is inf"),
        ("optim.epoch=3", "there is no field optim.epoch; is it optim.epochs?"),
        ("lr=1e-3", "there is no field lr; is it optim.lr?"),
        ("batch=3", "is it data.batch_size?"),
        ("model.image_sise=320", "is it model.image_size?"),
        ("xyz=1", "there is no field xyz\n"),
        ("--conf=configs/refclef.yaml", "there is no field conf; is it config?"),
    ],
)
def test_bad_settings(argument: str, cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong key, type or value is named in one line; exit code 2."""
    with pytest.raises(SystemExit) as ended:
        parse_arguments([argument])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert cause in message
    assert len(message.splitlines()) == 1


def test_a_file_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table given as the configuration is not quoted whole."""
    (tmp_path / "train.csv").write_text("img_id,bbox,query\n" + '1.jpg,"[1, 2, 3, 4]",the dog\n' * 1000)
    with pytest.raises(SystemExit):
        parse_arguments([f"--config={tmp_path / 'train.csv'}"])
    message = capsys.readouterr().err
    assert "img_id,bbox,query" in message
    assert len(message) < 1000


def test_every_field_is_described() -> None:
    """--help says of every field what it is."""
    for action in build_parser()._actions:
        assert action.help is None or not action.help.startswith("("), action.dest


@pytest.mark.parametrize("path", DATASETS, ids=lambda path: path.stem)
def test_datasets(path: Path) -> None:
    """Each dataset has the published recipe: two stages, the second from the best of the first, and the rates of the
    authors' schedule."""
    first, second = stages(parse_arguments([f"--config={path}"]))
    assert first.data.train is not None
    assert Path(first.data.train).parent.name == path.stem == Path(first.out).name
    assert (first.model.image_size, first.optim.epochs, first.data.batch_size) == (320, 10, 16)
    assert (second.model.image_size, second.optim.epochs, second.model.pyramid_levels) == (608, 10, (4, 5, 6, 7))
    assert (first.optim.lr, first.optim.betas, first.optim.patience) == (1e-4, (0.9, 0.99), 2)
    assert first.optim.schedule == second.optim.schedule == "published"
    assert second.start == f"{first.out}/best.pth"
    assert second.out != first.out
    assert ResizedConfig() == parse_arguments([f"--config={path}"]).resized


def test_overrides(tmp_path: Path) -> None:
    """Arguments win over the file, wherever it stands; nested fields and lists are reached."""
    config = parse_arguments(["optim.epochs=3", "model.pyramid_levels=[3, 4]", "data.scenes.train=7", "resized=null"])
    assert (config.optim.epochs, config.model.pyramid_levels, config.data.scenes.train) == (3, (3, 4), 7)
    assert config.resized is None
    assert stages(config) == [config]
    (tmp_path / "run.yaml").write_text("out: there\nseed: 3\n")
    for file in ([f"--config={tmp_path / 'run.yaml'}"], ["--config", str(tmp_path / "run.yaml")]):
        config = parse_arguments(["out=here", *file])
        assert (config.out, config.seed) == ("here", 3)


def test_start_brings_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A file of vectors beside it would not be read, so it is refused, but not for a second stage, to which its first
    one's settings come down."""
    with pytest.raises(SystemExit):
        parse_arguments(["start=a.pth", "data.word_vectors=glove.txt"])
    assert "data.word_vectors cannot be given" in capsys.readouterr().err
    words = ["data.word_vectors=glove.txt", "resized.pyramid_levels=[4, 5]"]
    for config in stages(parse_arguments(words)):
        assert config.data.word_vectors == "glove.txt"


def test_a_second_stage_of_other_levels() -> None:
    """The weights of the first have nothing for higher ones, and none at all are no network: both are refused before
    anything is trained."""
    with pytest.raises(ValueError, match=r"pyramid_levels are \(\)"):
        stages(parse_arguments(["resized.pyramid_levels=[]"]))
    config = parse_arguments(["model.pyramid_levels=[3, 4, 5]", "resized.pyramid_levels=[4, 5, 6]"])
    with pytest.raises(ValueError, match=r"resized.pyramid_levels go up to 6, model.pyramid_levels only to 5"):
        stages(config)

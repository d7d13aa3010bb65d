"""Training as its user starts it, and that ranks agree."""

import io
import json
import math
import re
import shutil
import signal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.parallel import DistributedDataParallel

import train.trainer
from model.checkpoint import Checkpoint
from model.loss import LossConfig
from tests.train import runs
from tests.train.ranks import together
from train.arguments import parse_arguments
from train.config import OptimConfig, ResizedConfig
from train.data.annotations import Row, read_rows
from train.data.dataset import GroundingDataset, collate
from train.data.sampler import Visit
from train.data.scenes import write_scenes
from train.evaluate import main as evaluate_file
from train.evaluation import Answers, Scores
from train.optimizer import build_optimizer
from train.run import main
from train.step import TrainingStep

RATES = ["optim.lr=0.03", "optim.backbone_lr=0.1"]
RESIZED = ["resized.image_size=96", "resized.pyramid_levels=[4, 5]", "resized.epochs=1", "resized.batch_size=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompletedProcess[str]]:
    """A run on two processes, one epoch."""
    folder = tmp_path_factory.mktemp("run")
    return folder, together(main, arguments(folder, "optim.epochs=1", *RATES), processes=2)


def arguments(folder: Path, *more: str) -> list[str]:
    """Of the command, for a small run."""
    data = ["data.scenes.train=8", "data.scenes.expressions=3"]
    return runs.arguments(folder / "scenes", folder / "out", *data, *more)


def test_two_processes(run: tuple[Path, CompletedProcess[str]]) -> None:
    """It prints a line with losses and accuracy over every validation row once, and leaves loadable checkpoints."""
    folder, done = run
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1: loss total") == 1
    assert "of 9 |" in done.stdout
    best, last = (Checkpoint.load(folder / "out" / f"{name}.pth") for name in ("best", "last"))
    assert best.training is None
    assert last.training is not None
    assert last.training["epoch"] == 1
    assert {"red", "circle"} & set(best.vocabulary.words)
    line = json.loads((folder / "out" / "history.jsonl").read_text())
    assert line["val"]["rows"] == 9
    rates = [group["lr"] for group in last.training["optimizer"]["param_groups"]]
    assert line["lr"] == rates[0] == pytest.approx(10 * rates[-1])


def test_what_is_validated_is_saved(
    run: tuple[Path, CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint alone scores what two processes did, though each had statistics of its own pictures."""
    folder, _ = run
    val = next((folder / "scenes").glob("val-*"))
    command = [str(folder / "out" / "best.pth"), str(val / "scenes.csv"), "--images", str(val / "images")]
    assert evaluate_file([*command, "--workers", "0", "--predictions", str(folder / "predictions.jsonl")]) == 0
    validated = json.loads((folder / "out" / "history.jsonl").read_text().splitlines()[0])["val"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == pytest.approx(validated, abs=1e-6)


def test_resume(run: tuple[Path, CompletedProcess[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """A run goes on after the last epoch it finished."""
    folder, _ = run
    assert main(arguments(folder, "optim.epochs=2", "resume=true", *RATES)) == 0
    printed = capsys.readouterr().out
    assert "epoch 2:" in printed
    assert "epoch 1:" not in printed
    history = [json.loads(line) for line in (folder / "out" / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2]


def test_what_a_run_leaves(run: tuple[Path, CompletedProcess[str]]) -> None:
    """Settings that `--config` reads again, versions, and TensorBoard's curves and panel."""
    out = run[0] / "out"
    config = parse_arguments([f"--config={out / 'config.yaml'}"])
    assert config.model == Checkpoint.load(out / "last.pth").config
    assert json.loads((out / "versions.json").read_text())["torch"] == torch.__version__.split("+")[0]
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert {"loss/total", "val/accuracy", "train/lr", "train/images_per_second"} <= set(events.Tags()["scalars"])
    panel = events.Images("validation")[0]
    caption = 24
    assert (panel.width, panel.height) == (4 * 66 + 2, 3 * (66 + caption) + 2)  # 9 rows of 64 pixels, framed
    drawn = np.asarray(Image.open(io.BytesIO(panel.encoded_image_string)))
    for row in range(9):
        top, left = 2 + row // 4 * (66 + caption), 2 + row % 4 * 66
        words = drawn[top : top + caption, left : left + 64]  # white on black
        assert words.min() == 0
        assert words.max() > 200


def test_two_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command trains both; the second, larger one begins with the best of the first, without its finest level, on
    two processes. Resumed, nothing is left to do, and more epochs of the first alone are refused; the first one's
    settings are those of both."""
    done = together(main, arguments(tmp_path, "optim.epochs=1", *RESIZED), processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1:") == 2
    assert "resized (96 pixels): training" in done.stderr
    first, second = (Checkpoint.load(tmp_path / "out" / path) for path in ("best.pth", "resized/best.pth"))
    assert (second.config.image_size, second.config.pyramid_levels) == (96, (4, 5))
    assert second.vocabulary.words == first.vocabulary.words
    left_out = "fpn.smooth.0.weight"  # of the finest level, so it stays as it was
    assert torch.equal(first.weights[left_out], second.weights[left_out])
    assert not torch.equal(first.weights["fpn.smooth.1.weight"], second.weights["fpn.smooth.1.weight"])
    assert main(arguments(tmp_path, "optim.epochs=1", "resume=true", *RESIZED)) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("epoch 1 of 1 is done") == 2
    assert main(arguments(tmp_path, "optim.epochs=2", "resume=true", *RESIZED)) == 2  # the second knows nothing of it
    assert re.search(r"out has epochs to go, but .*resized began with .*; move that", capsys.readouterr().err)
    written = parse_arguments([f"--config={tmp_path / 'out' / 'config.yaml'}"])
    assert written.resized == ResizedConfig(image_size=96, pyramid_levels=(4, 5), epochs=1, batch_size=2)


@pytest.mark.parametrize("setting", ["optim.backbone_lr=0", "optim.freeze_norm=true"])
def test_the_backbones_norms_stay(tmp_path: Path, setting: str) -> None:
    """Frozen alone or with all of the backbone, they have seen no picture after an epoch; other norms have."""
    assert main(arguments(tmp_path, "optim.epochs=1", setting)) == 0
    weights = Checkpoint.load(tmp_path / "out" / "last.pth").weights
    means = {name: tensor.any().item() for name, tensor in weights.items() if name.endswith("running_mean")}
    assert not any(moved for name, moved in means.items() if name.startswith("backbone."))
    assert all(moved for name, moved in means.items() if not name.startswith("backbone."))
    assert {name.startswith("backbone.") for name in means} == {True, False}


def test_asked_to_stop_in_the_last_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is finished and written down, and the second stage does not begin."""
    evaluate = train.trainer.evaluate

    def asked(*what: Any) -> Answers:
        signal.raise_signal(signal.SIGTERM)
        return evaluate(*what)

    monkeypatch.setattr(train.trainer, "evaluate", asked)
    assert main(arguments(tmp_path, "optim.epochs=1", *RESIZED)) == 128 + signal.SIGTERM
    training = Checkpoint.load(tmp_path / "out" / "last.pth").training
    assert training is not None
    assert training["epoch"] == len(training["history"]) == 1
    assert not (tmp_path / "out" / "resized").exists()


def test_not_a_number_is_never_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies of NaN, 0.2, NaN and 0.1: the second epoch's weights are kept as the best."""
    accuracies = iter([math.nan, 0.2, math.nan, 0.1])
    kept = []

    def of(answers: object, unusable: int) -> Scores:
        kept.append((tmp_path / "out" / "best.pth").exists())
        return Scores(next(accuracies), 0.0, 0.0, 0.0, 0.0, 1)

    monkeypatch.setattr(Scores, "of", of)
    assert main(arguments(tmp_path, "optim.epochs=4")) == 0
    assert kept == [False, False, True, True]
    training = Checkpoint.load(tmp_path / "out" / "last.pth").training
    assert training is not None
    assert training["best"] == 0.2


def learn(rank: int, checkpoint_path: str, rows: list[Row], folder: str) -> None:
    """One rank: two steps on data of its own, then its weights to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    checkpoint = Checkpoint.load(checkpoint_path)
    network = checkpoint.network().train()
    dataset = GroundingDataset(rows, checkpoint.preparation, share_images=False)
    optimizer = build_optimizer(network, OptimConfig(lr=1e-3))
    step = TrainingStep(DistributedDataParallel(network), optimizer, LossConfig(), OptimConfig(), torch.device("cpu"))
    for start in (0, 4):
        step([collate([dataset[Visit(0, start + 2 * rank + index)] for index in range(2)])])
    torch.save(dict(network.named_parameters()), f"{folder}/rank{rank}.pth")
    dist.destroy_process_group()


def test_ranks_hold_the_same_weights(checkpoint_path: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """After steps on different data both ranks hold the same weights, and these have moved."""
    rows = read_rows(write_scenes(tmp_path / "scenes", 4, seed=5), tmp_path / "scenes" / "images")
    mp.start_processes(learn, args=(str(checkpoint_path), rows, str(tmp_path)), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], checkpoint.weights[name]) for name in first)


@pytest.mark.parametrize(
    ("flags", "precision", "warned"),
    [("avx2 avx512f", "bf16", True), ("avx512_bf16", "bf16", False), ("amx_bf16", "bf16", False), ("", "fp32", False)],
)
def test_a_cpu_without_bf16(
    flags: str, precision: str, warned: bool,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A run in bf16 says before anything else that fp32 is faster there."""
    (tmp_path / "cpuinfo").write_text(f"model name\t: CPU\nflags\t\t: fpu {flags} sse\n")
    monkeypatch.setattr("train.run.CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "last.pth").touch()
    assert main(arguments(tmp_path, f"optim.precision={precision}")) == 2
    *before, refusal = capsys.readouterr().err.splitlines()
    assert "holds a run already" in refusal
    assert ["optim.precision=fp32 is faster" in line for line in before] == [True] * warned


@pytest.mark.parametrize("setting", ["backbone_weights", "data.word_vectors"])
def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str) -> None:
    """It is named before anything is done to the data, however late it is read."""
    assert main(arguments(tmp_path, f"{setting}={tmp_path / 'none.txt'}")) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"no file '{tmp_path / 'none.txt'}'")
    assert list(tmp_path.iterdir()) == []


def test_scenes_that_cannot_be_written(tmp_path: Path) -> None:
    """Both processes, of which one draws them, say why in one line."""
    (tmp_path / "scenes").write_text("a file where the folder should be")
    done = together(main, arguments(tmp_path), processes=2)
    assert done.returncode == 1
    assert done.stderr
    assert all(line.endswith(": Not a directory") for line in done.stderr.splitlines()), done.stderr


def test_skipping_what_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a broken picture a run stops before training and names its rows; told to skip, two processes go on without
    them, and what validation lacks counts as wrong."""
    for split, seed in (("train", 1), ("val", 2)):
        write_scenes(tmp_path / split, 6, seed=seed, expressions=2)
    shutil.copytree(tmp_path / "val" / "images", tmp_path / "images")
    for picture in (tmp_path / "train" / "images").iterdir():
        shutil.copy(picture, tmp_path / "images" / f"t{picture.name}")
    text = (tmp_path / "train" / "scenes.csv").read_text()
    (tmp_path / "train.csv").write_text(text.replace("\n0", "\nt0"))
    for name in ("t000003.jpg", "000002.jpg"):
        whole = (tmp_path / "images" / name).read_bytes()
        (tmp_path / "images" / name).write_bytes(whole[: len(whole) // 2])
    data = [f"data.train={tmp_path / 'train.csv'}", f"data.val={tmp_path / 'val' / 'scenes.csv'}"]
    data += [f"data.images={tmp_path / 'images'}", "data.share_images=false", "optim.epochs=1"]
    assert main(arguments(tmp_path, *data)) == 2
    message = capsys.readouterr().err
    assert "line 8: " in message
    assert "t000003.jpg cannot be used" in message
    assert "2 of 12 rows" in message
    assert not (tmp_path / "out").exists()
    skipped = together(main, arguments(tmp_path, *data, "data.on_error=skip"), processes=2)
    assert skipped.returncode == 0, skipped.stderr
    assert skipped.stderr.count("2 rows skipped, 10 used") == 2  # once for training, once for validation
    assert "of 12 |" in skipped.stdout

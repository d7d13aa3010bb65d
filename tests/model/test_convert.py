"""The authors' checkpoint as ours: the same answers, and clear refusals."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.convert import convert, convert_weights, main, original_config
from model.gin import GIN
from model.record import check_record

RECORDS = Path(__file__).parent.parent / "records"
RECORD = RECORDS / "gin_resnet50_320.npz"
ARRAYS = {"language", "score_logits", "box_deltas", "loss", "pred_boxes_xyxy", "pred_scores"}
ARRAYS |= {f"attention_{what}_{level}" for what in ("logits", "target") for level in range(3)}


@pytest.fixture(scope="module")
def converted(original_path: Path) -> Checkpoint:
    """The converted checkpoint."""
    return convert(original_path)


def test_answers_as_the_record(original_path: Path, tmp_path: Path) -> None:
    """The command prints one JSON line with every array's difference, all tiny, and writes the checkpoint."""
    command = [sys.executable, "-m", "model.convert", original_path, tmp_path / "ours.pth", "--check", RECORD]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.keys() >= ARRAYS
    assert max(report[name] for name in ARRAYS) < 1e-3
    assert report["language"] < 1e-5
    assert Checkpoint.load(tmp_path / "ours.pth").config.transposed_diffusion


def test_other_sizes_lengths_and_batches(converted: Checkpoint) -> None:
    """At 96 pixels, for a batch of three with 1, 7 and 50 words and boxes smaller than an anchor, it holds too."""
    report = check_record(converted, RECORDS / "gin_resnet50_96.npz")
    assert report["passed"], report
    assert report.keys() >= ARRAYS


def test_coarse_sizes_leave_levels_out() -> None:
    """At 608 the authors use P4 to P7, elsewhere P3 to P8."""
    assert original_config(608).pyramid_levels == (4, 5, 6, 7)
    assert original_config(640).pyramid_levels == (3, 4, 5, 6, 7, 8)


def test_prefix_is_optional(original_weights: dict[str, torch.Tensor], converted: Checkpoint) -> None:
    """Names convert with `module.` before them and without."""
    network = GIN(converted.config, len(converted.vocabulary))
    plain = convert_weights(original_weights, network)
    prefixed = convert_weights({f"module.{name}": weight for name, weight in original_weights.items()}, network)
    assert plain.keys() == prefixed.keys() == network.state_dict().keys()


@pytest.mark.parametrize("header", ["", "3 300\n"])
def test_word_vectors(original_path: Path, tmp_path: Path, header: str) -> None:
    """GloVe's and word2vec's text formats fill the embedding; unknown words are zero."""
    random = np.random.default_rng(0)
    table = {word: random.standard_normal(300).astype(np.float32) for word in ("red", "Circle", "left")}
    lines = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in table.items()]
    (tmp_path / "vectors.txt").write_text(header + "".join(lines))
    checkpoint = convert(original_path, word_vectors=tmp_path / "vectors.txt")
    assert checkpoint.vocabulary.words == ("red", "circle", "left")
    embedding = checkpoint.weights["expression.embedding.weight"]
    assert not embedding[:2].any()
    np.testing.assert_allclose(embedding[3].numpy(), table["Circle"], rtol=1e-6)


def rewrite(path: Path, out: Path, change: dict[str, torch.Tensor | None]) -> Path:
    """A copy of a checkpoint with tensors replaced, added or (None) left out."""
    content = torch.load(path, weights_only=True)
    weights = content["model_state_dict"] | {f"module.{name}": weight for name, weight in change.items()}
    content["model_state_dict"] = {name: weight for name, weight in weights.items() if weight is not None}
    torch.save(content, out)
    return out


def test_wrong_weights_fail_the_check(original_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One changed tensor: exit code 1, the differences are printed, nothing is written."""
    wrong = rewrite(original_path, tmp_path / "wrong.pth", {"att_reg_box.5.bias": torch.zeros(45)})
    assert main([str(wrong), str(tmp_path / "out.pth"), "--check", str(RECORD)]) == 1
    assert json.loads(capsys.readouterr().out)["score_logits"] > 1e-2
    assert not (tmp_path / "out.pth").exists()


def test_wrong_tensors_are_listed(original_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, extra and misshapen tensors are all named; exit code 2."""
    change = {"lstm.bias_hh_l0": None, "more.weight": torch.zeros(2), "att_reg_box.5.bias": torch.zeros(9)}
    wrong = rewrite(original_path, tmp_path / "wrong.pth", change)
    assert main([str(wrong), str(tmp_path / "out.pth")]) == 2
    message = capsys.readouterr().err
    for line in ("missing: lstm.bias_hh_l0", "extra: more.weight", "misshapen: att_reg_box.5.bias is [9]"):
        assert line in message
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("content", ["hello", ""])
def test_not_a_checkpoint(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A text file is refused in one line, exit code 2."""
    (tmp_path / "text.pth").write_text(content)
    assert main([str(tmp_path / "text.pth"), str(tmp_path / "out.pth")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([str(tmp_path / "nowhere.pth"), str(tmp_path / "out.pth")]) == 2

"""The authors' checkpoint as ours: the same answers, and clear refusals."""

import dataclasses
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.convert import convert, main
from model.original import ARCHITECTURES, Architecture, architecture_of, resized
from model.record import InvalidRecord, check_record
from model.settings import InvalidSettings, configure
from model.word_vectors import InvalidWordVectors, read_word_vectors
from model.words import Vocabulary

RECORDS = Path(__file__).parent.parent / "records"
DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"
RECORD = RECORDS / "gin_resnet50_320.npz"
ARRAYS = {"language", "score_logits", "box_deltas", "loss", "pred_boxes_xyxy", "pred_scores"}
ARRAYS |= {f"attention_{what}_{level}" for what in ("logits", "target") for level in range(3)}


@pytest.fixture(scope="module")
def converted(original_path: Path) -> Checkpoint:
    """The converted checkpoint."""
    return convert(original_path)


def test_answers_as_the_record(original_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints one JSON line with every array's difference, all tiny, and writes the checkpoint."""
    assert main([str(original_path), str(tmp_path / "ours.pth"), "--check", str(RECORD)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.keys() >= ARRAYS
    assert max(report[name] for name in ARRAYS) < 1e-3
    assert report["language"] < 1e-5
    assert Checkpoint.load(tmp_path / "ours.pth").config.transposed_diffusion


def test_other_sizes_lengths_and_batches(converted: Checkpoint) -> None:
    """At 96 pixels, for a batch of three with 1, 7 and 50 words and boxes smaller than an anchor, it holds too."""
    report = check_record(converted, RECORDS / "gin_resnet50_96.npz")
    assert report["passed"], report
    assert report.keys() >= ARRAYS


def test_zsgnet_answers_as_its_record(zsgnet_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ZSGNet is recognised with either backbone, at its published size, and answers every array of its record."""
    record = RECORDS / f"{zsgnet_path.stem}_300.npz"
    out = tmp_path / "ours.pth"
    assert main([str(zsgnet_path), str(out), "--check", str(record)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"score_logits", "box_deltas", "feature_sizes", "passed"}
    assert report["passed"]
    config = Checkpoint.load(out).config
    assert (config.image_size, config.afs, config.garan) == (300, False, False)
    assert config.backbone == ("ssd_vgg16" if "vgg" in zsgnet_path.stem else "resnet50")


def test_a_record_of_another_network(converted: Checkpoint, checkpoint: Checkpoint, zsgnet_path: Path) -> None:
    """What the record holds and the network does not answer is named; a network of our own has no record."""
    with pytest.raises(InvalidRecord, match="attention_logits_0.*does not answer"):
        check_record(convert(zsgnet_path), RECORD)
    with pytest.raises(ValueError, match="none of the original"):
        check_record(checkpoint, RECORDS / "gin_resnet50_96.npz")


def test_every_array_is_compared(converted: Checkpoint, tmp_path: Path) -> None:
    """A difference in any one of a record's answers fails the check."""
    with np.load(RECORDS / "gin_resnet50_96.npz") as arrays:
        record = dict(arrays)
    record["pred_scores"] = record["pred_scores"] + 1e-3
    np.savez(tmp_path / "changed.npz", **record)
    assert not check_record(converted, tmp_path / "changed.npz")["passed"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_seed": np.array(7)}, r"image_seed has shape \(\) and not \(2,\)"),
        ({"image_hw": None}, "it lacks image_hw"),
        ({"image_hw": np.ones(3)}, r"image_hw has shape \(3,\) and not \(3, 2\)"),
        ({"word_vectors": np.ones((3, 50, 100))}, r"word_vectors has shape \(3, 50, 100\) and not \(3, 50, 300\)"),
        ({"word_vectors": np.ones(3)}, "word_vectors has shape"),
        ({"lengths": np.array([2, 1])}, r"lengths has shape \(2,\) and not \(3,\)"),
        ({"lengths": np.array([0, 1, 7])}, r"lengths are \[0, 1, 7\]; each must be from 1 to 50"),
        ({"lengths": np.array([1, 99, 7])}, r"lengths are \[1, 99, 7\]; each must be from 1 to 50"),
        ({"lengths": np.array([2, 1, np.nan])}, "lengths holds float64 and no integers"),
        ({"image_seed": np.array([7.0, 96.0])}, "image_seed holds float64 and no integers"),
        ({"score_logits": np.array(["high"])}, "score_logits holds <U4 and no numbers"),
    ],
)
def test_a_bad_record(change: dict[str, np.ndarray | None], message: str, tmp_path: Path) -> None:
    """What is missing, misshapen or impossible in it is named, before the network is asked."""
    with np.load(RECORDS / "gin_resnet50_96.npz") as arrays:
        record = {name: array for name, array in (dict(arrays) | change).items() if array is not None}
    np.savez(tmp_path / "bad.npz", **record)
    with pytest.raises(InvalidRecord, match=f"bad.npz.*{message}"):
        check_record(Checkpoint(ARCHITECTURES[0].config, Vocabulary([]), weights={}), tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("architecture", "size", "levels"),
    [
        (ARCHITECTURES[0], 608, (4, 5, 6, 7)),
        (ARCHITECTURES[0], 640, (3, 4, 5, 6, 7, 8)),
        (ARCHITECTURES[1], 600, (4, 5, 6, 7)),
        (ARCHITECTURES[1], 608, (3, 4, 5, 6, 7, 8)),
        (ARCHITECTURES[2], 599, (3, 4, 5, 6, 7, 8)),
        (ARCHITECTURES[2], 640, (4, 5, 6, 7, 8)),
    ],
)
def test_coarse_sizes_leave_levels_out(architecture: Architecture, size: int, levels: tuple[int, ...]) -> None:
    """Each of the authors' networks leaves levels out at its own sizes, and stays the same network."""
    config = architecture.at_size(size)
    assert config.pyramid_levels == levels
    assert architecture_of(config) is architecture


def test_our_own_networks_are_not_theirs() -> None:
    """A network without their exchange of rows and columns is none of the authors'."""
    assert architecture_of(ModelConfig()) is None


def test_another_size() -> None:
    """One of the authors' networks has the levels published for its size; one with levels of its own keeps them, and so
    does a network of ours."""
    theirs = ARCHITECTURES[0]
    assert resized(theirs.at_size(320), 608) == theirs.at_size(608)
    assert resized(theirs.at_size(608), 320) == theirs.at_size(320)
    for config in (ModelConfig(), dataclasses.replace(theirs.at_size(320), pyramid_levels=(3, 4))):
        assert resized(config, 608) == dataclasses.replace(config, image_size=608)


def test_size_and_prefix(original_path: Path, tmp_path: Path) -> None:
    """Names convert without `module.` too, and the size is what the checkpoint's own settings say."""
    content = torch.load(original_path, weights_only=True)
    weights = content["model_state_dict"]
    content["model_state_dict"] = {name.removeprefix("module."): weight for name, weight in weights.items()}
    content["cfgtxt"] = json.dumps({"resize_img": [608, 608]})
    torch.save(content, tmp_path / "plain.pth")
    config = convert(tmp_path / "plain.pth").config
    assert config == ARCHITECTURES[0].at_size(608)
    assert convert(tmp_path / "plain.pth", image_size=96).config.image_size == 96


def with_settings(path: Path, out: Path, settings: dict[str, object]) -> Path:
    """A copy of a checkpoint with other settings."""
    content = torch.load(path, weights_only=True)
    torch.save(content | {"cfgtxt": json.dumps(settings)}, out)
    return out


@pytest.mark.parametrize(
    ("settings", "ratios", "scales"),
    [
        ({"ratios": "[1/3, 1, 3]", "scale_factor": 8}, (1 / 3, 1, 3), (8, 8 * 2 ** (1 / 3), 8 * 2 ** (2 / 3))),
        ({"ratios": [1], "scales": "(1, 2, 3, 4, 5, 6, 7, 8, 9)"}, (1,), (4, 8, 12, 16, 20, 24, 28, 32, 36)),
        ({"ratios": "[1/2, 1, 2]", "do_norm": False}, ModelConfig().anchor_ratios, ModelConfig().anchor_scales),
    ],
)
def test_anchors(settings: dict[str, object], ratios: tuple, scales: tuple) -> None:
    """Those of the checkpoint's own settings, as lists or written as Python, are carried over; it stays the network
    that it is."""
    config = configure(ARCHITECTURES[0], settings)
    assert config == dataclasses.replace(ARCHITECTURES[0].config, anchor_ratios=ratios, anchor_scales=scales)
    assert architecture_of(config) is ARCHITECTURES[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_norm": True}, "do_norm is True"),
        ({"resize_img": [480, 320]}, r"resize_img is \[480, 320\]"),
        ({"resize_img": [320.0, 320.0]}, r"resize_img is \[320.0, 320.0\]"),
        ({"resize_img": [True, True]}, "resize_img is"),
        ({"resize_img": 320}, "resize_img is 320"),
        ({"ratios": "[1, 2]"}, r"ratios '\[1, 2\]' do not make the 9 anchors"),
        ({"ratios": "[1, 2, -3]"}, "ratios is '\\[1, 2, -3]'"),
        ({"ratios": "[1, 2, True]"}, "ratios is"),
        ({"ratios": "[1, 2, 1/0]"}, "ratios is"),
        ({"scales": "__import__('os').abort()"}, "scales is"),
        ({"scales": "[1, 2, 9.0**9**9]"}, "scales is"),
        ({"scales": None}, "scales is None"),
        ({"scale_factor": 0}, "scale_factor is 0"),
        ({"scale_factor": "(1j)"}, "scale_factor is"),
        ({"scale_factor": {"4": 4}}, "scale_factor is {'4': 4}"),
    ],
)
def test_settings_that_ours_cannot_have(settings: dict[str, object], message: str) -> None:
    """The key and its value are named, and nothing in it runs."""
    with pytest.raises(InvalidSettings, match=message):
        configure(ARCHITECTURES[0], settings)


def test_settings_are_refused(original_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line with the file's name; exit code 2. A size that is given counts, and not that of the settings."""
    path = with_settings(original_path, tmp_path / "wide.pth", {"resize_img": [480, 320]})
    assert main([str(path), str(tmp_path / "out.pth")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "wide.pth cannot be converted: in its configuration (cfgtxt) resize_img is [480, 320]" in message
    assert not (tmp_path / "out.pth").exists()
    assert convert(path, image_size=96).config == ARCHITECTURES[0].at_size(96)


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


def test_documented_word_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented program writes those of spaCy's words that splitting can leave, and they can be read."""
    table = np.random.default_rng(0).standard_normal((5, 300)).astype(np.float32)
    words = dict(enumerate(["red", ",", "Circle", "n't", "2nd"]))
    vectors = types.SimpleNamespace(items=lambda: enumerate(table))
    language = types.SimpleNamespace(vocab=types.SimpleNamespace(vectors=vectors, strings=words))
    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=lambda _: language))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(import spacy\n.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(code)
    kept, written = read_word_vectors(tmp_path / "vectors.txt", width=300)
    assert kept == ["red", "2nd"]
    np.testing.assert_array_equal(written, table[[0, 4]])


@pytest.mark.parametrize(
    ("line", "cause"), [(b"\xff 1 2", "line 2 is not UTF-8"), (b"red 1 nan", "line 2: a number is not finite")]
)
def test_unusable_word_vectors(tmp_path: Path, line: bytes, cause: str) -> None:
    """The file and the line are named."""
    (tmp_path / "vectors.txt").write_bytes(b"blue 1 2\n" + line + b"\ngreen 1 2\n")
    with pytest.raises(InvalidWordVectors, match=f"vectors.txt, {cause}"):
        read_word_vectors(tmp_path / "vectors.txt", width=2)


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
    record = RECORDS / "gin_resnet50_96.npz"
    assert main([str(wrong), str(tmp_path / "out.pth"), "--check", str(record)]) == 1
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


def test_wrong_tensors_of_zsgnet(zsgnet_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tensors are listed against the network that fits best."""
    wrong = rewrite(
        zsgnet_path, tmp_path / "wrong.pth", {"lstm.bias_hh_l0": None, "backbone.fpn.P9.bias": torch.zeros(2)}
    )
    assert main([str(wrong), str(tmp_path / "out.pth")]) == 2
    message = capsys.readouterr().err
    assert ("ZSGNet with SSD-VGG16" if "vgg" in zsgnet_path.stem else "ZSGNet with ResNet-50") in message
    assert [line.strip() for line in message.splitlines()[1:]] == [
        "extra: backbone.fpn.P9.bias",
        "missing: lstm.bias_hh_l0",
    ]


@pytest.mark.parametrize("content", ["hello", ""])
def test_not_a_checkpoint(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A text file is refused in one line, exit code 2."""
    (tmp_path / "text.pth").write_text(content)
    assert main([str(tmp_path / "text.pth"), str(tmp_path / "out.pth")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([str(tmp_path / "nowhere.pth"), str(tmp_path / "out.pth")]) == 2

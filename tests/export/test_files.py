"""Exported files answer as the checkpoint, and a file that does not is not written."""

import dataclasses
import json
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np
import onnx as onnx_format
import pytest
import torch

from export import aot, onnx, torchscript
from export.build import ask
from export.command import make_parser, run_export
from export.formats import Format
from export.graphs import ANSWERS, INPUTS, make_graphs
from export.manifest import MANIFEST, hash_file
from export.questions import arrays, make_question
from model.checkpoint import Checkpoint
from model.preparation import Preparation
from tests.export.conftest import MODULES
from train.data.scenes import write_scenes

SHAPES = {  # of the small network
    "images": ["B", 64, 64, 3],
    "features_8": ["B", 3, 16, 8, 8],
    "features_16": ["B", 3, 16, 4, 4],
    "features_32": ["B", 3, 16, 2, 2],
    "expression_ids": ["N", "T"],
    "lengths": ["N"],
    "image_index": ["N"],
    "image_sizes": ["B", 2],
    "boxes": ["N", 4],
    "scores": ["N"],
    "attention": ["N", 8, 8],
    "anchors": ["N"],
    "candidate_boxes": ["N", 128, 4],
    "candidate_scores": ["N", 128],
}
CASES = [(1, [1]), (1, [2]), (3, [1, 2, 25, 50, 49]), (1, [50] * 9), (5, [3, 3]), (2, [13])]


@pytest.mark.parametrize(("images", "lengths"), CASES)
def test_answers_as_pytorch(exported: Path, kind: Format, checkpoint: Checkpoint, images: int, lengths: list) -> None:
    """Any number of images, expressions and words: the same boxes, scores, attention and winning anchors, from the
    whole graph and from its two parts."""
    graphs = make_graphs(checkpoint.network())
    question = make_question(checkpoint, images, lengths, seed=100)
    expected, asked = arrays(graphs["gin"](question)), arrays(question)
    files = {name: exported / f"{name}{kind.suffix}" for name in graphs}
    files = {name: path for name, path in files.items() if path.exists()}
    runners = {name: kind.open(path, graphs[name].inputs, graphs[name].outputs) for name, path in files.items()}
    given = ask(runners, asked)
    for answers in (given["gin"], given.get("gin_expression", given["gin"])):
        np.testing.assert_allclose(answers["boxes"], expected["boxes"], atol=0.05)
        np.testing.assert_allclose(answers["scores"], expected["scores"], atol=1e-4)
        np.testing.assert_allclose(answers["attention"], expected["attention"], atol=1e-4)
        np.testing.assert_array_equal(answers["anchors"], expected["anchors"])
    assert np.ptp(expected["boxes"], axis=0).max() > 1 or len(lengths) == 1  # they differ, so this says something


@pytest.mark.parametrize("exported", ["torchscript"], indirect=True)
def test_torchscript_follows_its_inputs(exported: Path, checkpoint: Checkpoint) -> None:
    """No device is written into a file, or it would mix the inputs' with that one; on a GPU it answers alike."""
    path = exported / "gin.pt"
    network = torch.jit.load(str(path))
    graph = network.inlined_graph  # its nodes live no longer than it
    kinds = {node.output().type().kind() for node in graph.findAllNodes("prim::Constant")}
    assert "IntType" in kinds
    assert "DeviceObjType" not in kinds
    if torch.cuda.is_available():
        question = make_question(checkpoint, 2, [3, 1, 9], seed=7)
        with torch.inference_mode():
            there = torch.jit.load(str(path), map_location="cuda")(*(question[name].cuda() for name in INPUTS))
            here = network(*(question[name] for name in INPUTS))
        torch.testing.assert_close(there[1].cpu(), here[1], atol=0.01, rtol=0)


def test_manifest(exported: Path, kind: Format, checkpoint_path: Path) -> None:
    """Beside the files lies what they are: the checkpoint's hash and theirs, the comparison, limits and versions."""
    manifest = json.loads((exported / MANIFEST).read_text())
    assert manifest["checkpoint"] == hash_file(checkpoint_path)
    assert manifest["files"].keys() == {path.name for path in exported.iterdir()} - {MANIFEST}
    assert manifest["versions"]["torch"] == torch.__version__
    for name, graph in manifest["graphs"].items():
        assert manifest["files"][graph["file"]] == hash_file(exported / f"{name}{kind.suffix}")
    assert manifest["graphs"]["gin"]["parity"]["same_anchor"] == 1
    assert manifest["graphs"]["gin"]["parity"]["boxes"] <= manifest["limits"]["boxes"]
    for name, fact in {"gin_image": "features", "gin_expression": "boxes"}.items():
        if name in manifest["graphs"]:
            assert manifest["graphs"][name]["parity"][fact] <= manifest["limits"][fact]
    vocabulary = Preparation.load(exported / "vocabulary.json")
    assert vocabulary.image_size == manifest["image_size"]


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_onnx_graph(exported: Path, checkpoint_path: Path) -> None:
    """Inputs, outputs and their sizes, free or fixed, are the contract's; nothing in the graph is random; it says where
    it is from."""
    for name in ("gin", "gin_image", "gin_expression"):
        model = onnx_format.load(exported / f"{name}.onnx")
        for value in (*model.graph.input, *model.graph.output):
            axes = [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            assert axes == SHAPES[value.name]
        random = {"Dropout", "RandomNormal", "RandomUniform", "Bernoulli", "Loop"}
        assert not {node.op_type for node in model.graph.node} & random
        facts = {entry.key: entry.value for entry in model.metadata_props}
        assert facts == {
            "graph": name,
            "checkpoint": hash_file(checkpoint_path),
            "precision": "fp32",
            "image_size": "64",
        }
        assert model.ir_version == 8
    whole = onnx_format.load(exported / "gin.onnx").graph
    assert tuple(value.name for value in whole.input) == INPUTS
    assert tuple(value.name for value in whole.output) == ANSWERS


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
@pytest.mark.parametrize("shape", [(1, 32, 64, 3), (1, 128, 128, 3), (1, 64, 64, 4)])
def test_a_picture_of_another_size(exported: Path, checkpoint: Checkpoint, shape: tuple[int, ...]) -> None:
    """It is refused, not answered wrongly."""
    asked = arrays(make_question(checkpoint, 1, [2], seed=0)) | {"images": np.zeros(shape, np.uint8)}
    with pytest.raises(Exception, match="invalid dimensions for input: images"):  # its errors share no base
        onnx.FORMAT.open(exported / "gin.onnx", INPUTS, ANSWERS)(asked)


def test_other_sizes(
    checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights for larger pictures; a size that the network cannot have is named. A terminal sees each step."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert torchscript.main([str(checkpoint_path), "--size", "96", "--out", str(tmp_path / "larger")]) == 0
    printed = capsys.readouterr()
    steps = [f"writing {name}.pt ..." for name in ("gin_image", "gin_expression", "gin")]
    assert printed.err.splitlines() == [*steps, "comparing the files with the checkpoint ..."]
    report = json.loads(printed.out)
    assert report["graphs"]["gin"]["parity"]["same_anchor"] == 1
    assert Preparation.load(tmp_path / "larger" / "vocabulary.json").image_size == 96
    assert torchscript.main([str(checkpoint_path), "--size", "100", "--out", str(tmp_path / "odd")]) == 2
    assert "image_size is 100; it must be a multiple of 32" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "odd").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_half_precision(name: str, checkpoint_path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """fp16 files take and give what the others do, answer nearly the same, and name what is kept in fp32."""
    if name == "onnx":
        repository = request.getfixturevalue("half")
    else:
        repository = tmp_path
        assert MODULES[name].main([str(checkpoint_path), "--precision", "fp16", "--repository", str(tmp_path)]) == 0
    report = json.loads((repository / f"gin_{name}_fp16" / "1" / MANIFEST).read_text())
    assert report["kept_in_fp32"] == ["expression", "head.score", "head.deltas"]
    assert 0 < report["graphs"]["gin"]["parity"]["scores"] <= 0.02
    assert report["graphs"]["gin"]["parity"]["mean_iou"] >= 0.98


def test_int8(checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Convolutions become int8 after calibration on annotated pictures, but for those whose loss is named."""
    write_scenes(tmp_path / "scenes", 3, seed=0)
    csv, repository = tmp_path / "scenes" / "scenes.csv", tmp_path / "repository"
    images = (tmp_path / "scenes" / "images").rename(tmp_path / "pictures")
    command = [str(checkpoint_path), "--precision", "int8", "--calibration", str(csv), "--images", str(images)]
    command += ["--repository", str(repository)]
    limits = ["--same-anchor", "0.3", "--mean-iou", "0.3", "--scores", "0.5", "--boxes", "1000"]  # it is not trained
    whole = dataclasses.replace(onnx.FORMAT, models={"gin_onnx": onnx.FORMAT.models["gin_onnx"]})  # its parts take long
    assert run_export(make_parser("", whole).parse_args([*command, *limits]), whole) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["graphs"]["gin"]["parity"]["scores"] > 1e-6
    assert report["int8_layers"] + len(report["int8_left_out"]) > 40
    model = onnx_format.load(repository / "gin_onnx_int8" / "1" / "model.onnx")
    assert [entry.domain for entry in model.opset_import] == [""]  # what else there is, older runtimes do not know
    graph = model.graph
    weights = {value.name: value for value in graph.initializer}
    quantized = [value for value in weights.values() if value.data_type == onnx_format.TensorProto.INT8]
    assert len(quantized) >= report["int8_layers"]
    largest = max(abs(onnx_format.numpy_helper.to_array(value).astype(int)).max() for value in quantized)
    assert 60 <= largest <= 64  # 7 bits
    scales = [weights[value.name.replace("_quantized", "_scale")] for value in quantized]
    assert any(len(onnx_format.numpy_helper.to_array(scale)) > 1 for scale in scales)  # per channel


def test_calibration_with_bad_rows(checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that cannot be used, or no CSV at all, is named in one line before anything is exported; exit code 2."""
    write_scenes(tmp_path / "scenes", 2, seed=0)
    csv = tmp_path / "scenes" / "scenes.csv"
    lines = csv.read_text().splitlines()
    lines[2] = lines[2].replace(".jpg", ".nowhere")
    csv.write_text("\n".join(lines))
    command = [str(checkpoint_path), "--precision", "int8", "--out", str(tmp_path / "out")]
    for more, cause in (
        (["--calibration", str(csv)], "scenes.csv, line 3: there is no picture"),
        (["--calibration", str(tmp_path / "none.csv")], "none.csv"),
        ([], "--calibration"),
    ):
        assert onnx.main([*command, *more]) == 2
        message = capsys.readouterr().err
        assert len(message.splitlines()) == 1
        assert cause in message
    assert not (tmp_path / "out").exists()


def test_opset_that_is_not_known(checkpoint_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, with those that are; exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        onnx.main([str(checkpoint_path), "--opset", "99"])
    assert stopped.value.code == 2
    assert "invalid choice: 99 (choose from 18, 19, 20, 21, 22, 23)" in capsys.readouterr().err


def test_wrong_file_is_not_written(
    checkpoint: Checkpoint,
    checkpoint_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the exported network differs in one weight, the export fails with the limit it was given, leaves nothing, and
    a former file stays; exit code 1. What is no limit is named; 2."""
    former = tmp_path / "gin_torchscript" / "1" / "model.pt"
    former.parent.mkdir(parents=True)
    former.write_bytes(b"former")
    bias = checkpoint.weights["head.output.bias"].clone()
    bias[4::5] += torch.linspace(0, 0.5, len(bias) // 5)
    changed = dataclasses.replace(checkpoint, weights=checkpoint.weights | {"head.output.bias": bias})
    monkeypatch.setattr("export.build.rewrite", lambda *_: changed.network())
    command = [str(checkpoint_path), "--scores", "0.001", "--repository", str(tmp_path)]
    assert torchscript.main(command) == 1
    said = r"the exported file answers differently: .*scores \S+ \(limit 0.001\).*; nothing was written\n"
    assert re.search(said, capsys.readouterr().err)
    assert torchscript.main([*command, "--mean-iou", "nan"]) == 2
    assert capsys.readouterr().err.endswith("mean_iou is nan; a limit is a finite number\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [former]
    assert former.read_bytes() == b"former"


@pytest.mark.parametrize("name", MODULES)
def test_not_a_checkpoint(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text file, or none, is refused in one line; exit code 2."""
    (tmp_path / "text.pth").write_text("hello")
    for path in (tmp_path / "text.pth", tmp_path / "nowhere.pth"):
        assert MODULES[name].main([str(path), "--out", str(tmp_path / "out")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_target_that_cannot_be_written(
    checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the folder should be: one line, exit code 2."""
    (tmp_path / "out").write_text("a file")
    assert onnx.main([str(checkpoint_path), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "out" in message


@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_full_disk(
    name: str,
    checkpoint_path: Path,
    export_once: Callable[[Format], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No room for the file: one line, exit code 2; nothing half-written stays, and former files do."""
    if name == "onnx":  # whose graph takes long to make
        made = SimpleNamespace(model_proto=onnx_format.load(export_once(onnx.FORMAT) / "gin_image.onnx"))
        monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: made)
    version = tmp_path / f"gin_{name}" / "1"
    version.mkdir(parents=True)
    (version / MANIFEST).write_text("former")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    try:
        assert MODULES[name].main([str(checkpoint_path), "--repository", str(tmp_path)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "File too large" in message
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [version / MANIFEST]


def test_full_disk_for_an_archive(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is Python that writes it, for PyTorch ends the process where there is no room."""

    def compiled(_: object, package_path: IO[bytes], **__: object) -> None:
        package_path.write(b"an archive")

    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)  # which takes a minute with compiling
    monkeypatch.setattr("export.aot.aoti_compile_and_package", compiled)
    question = make_question(checkpoint, images=1, lengths=[2], seed=0)
    with pytest.raises(OSError, match="No space left on device"):
        aot.write(make_graphs(checkpoint.network())["gin"], question, Path("/dev/full"), {})

"""Questions answered together, and features kept, without a server around them."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import OrtValue
from PIL import Image, ImageOps

from model.checkpoint import Checkpoint
from model.preparation import InvalidInput, Preparation
from serve.answering.answerer import Answer, Answerer
from serve.answering.batches import Batches
from serve.answering.features import Features, Seen
from serve.answering.network import Network
from serve.sessions import CannotOpen, choose_providers, make_options
from tests.serve.test_answers import encoded, in_pytorch


@pytest.fixture(scope="module")
def network(repository: Path) -> Network:
    """The exported network."""
    return Network(repository / "gin" / "1", {}, None)


@pytest.fixture
def answerer(network: Network, checkpoint: Checkpoint) -> Answerer:
    """Nothing kept yet."""
    return Answerer(checkpoint.preparation, network, Features(2**20))


def assert_like_pytorch(answer: Answer, checkpoint: Checkpoint, image: bytes, expressions: list[bytes]) -> None:
    """Boxes and scores are the network's own."""
    boxes, scores, *_ = in_pytorch(checkpoint, image, [expression.decode() for expression in expressions])
    np.testing.assert_allclose(answer["boxes"], boxes, atol=0.05)
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-4)


def test_joined_questions(answerer: Answerer, checkpoint: Checkpoint, picture: Image.Image) -> None:
    """Questions of various N and T about images that are new, known or the same: each is answered as if alone."""
    first, second, third = (encoded(image) for image in (picture, ImageOps.mirror(picture), ImageOps.flip(picture)))
    answerer.answer([answerer.prepare(second, [b"star"])])
    asked = [
        (first, [b"circle", b"the red circle left of the blue square"]),
        (second, [b"star"]),
        (third, [b"small " * 50]),
        (first, [b"green star above", b"star", b"x"]),
    ]
    answers = answerer.answer([answerer.prepare(*question) for question in asked])
    for answer, question in zip(answers, asked, strict=True):
        assert_like_pytorch(answer, checkpoint, *question)
    assert (answerer.hits, answerer.misses) == (2, 3)


def test_known_image_is_not_decoded(answerer: Answerer, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second question about the same bytes needs neither the decoder nor the image part."""
    before = answerer.answer([answerer.prepare(jpeg, [b"star"])])[0]
    monkeypatch.setattr(Preparation, "image", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(answerer.network, "encode", lambda *_: pytest.fail("encoded"))
    after = answerer.answer([answerer.prepare(jpeg, [b"star"])])[0]
    np.testing.assert_array_equal(before["boxes"], after["boxes"])
    with pytest.raises(InvalidInput, match="EXPRESSION"):
        answerer.prepare(jpeg, [b""])


def test_features_are_bounded() -> None:
    """What was unused for longest goes first; the size is kept, and what is too large is not taken in."""
    features = Features(100)
    seen = {size: Seen((OrtValue.ortvalue_from_numpy(np.zeros(size, np.uint8)),), (1, 1)) for size in (40, 101)}
    for key in (b"a", b"b"):
        features.put(key, seen[40])
    assert features.get(b"a")
    features.put(b"c", seen[40])
    features.put(b"c", seen[40])
    assert (features.nbytes, len(features)) == (80, 2)
    assert features.get(b"a")
    assert not features.get(b"b")
    features.put(b"d", seen[101])
    assert (features.nbytes, len(features)) == (80, 2)


def test_batches() -> None:
    """What waits is run together up to the weight, in order; a heavy item goes alone; the end loses nothing."""
    seen: list[list[int]] = []
    go = threading.Event()

    def run(batch: list[int]) -> None:
        go.wait(10)
        seen.append(batch)

    batches = Batches(run, weigh=lambda item: item, most=8, threads=1)
    for item in (1, 5, 3, 2, 64, 8, 1):
        batches.put(item)
    go.set()
    batches.end()
    assert [item for batch in seen for item in batch] == [1, 5, 3, 2, 64, 8, 1]
    assert seen[-3:] == [[64], [8], [1]]
    assert all(sum(batch) <= 8 or len(batch) == 1 for batch in seen)
    assert len(seen) < 7


def test_batches_at_once() -> None:
    """With two threads two batches run at the same time, and the end loses nothing."""
    seen: list[int] = []
    both = threading.Barrier(2)

    def run(batch: list[int]) -> None:
        both.wait(10)
        seen.extend(batch)

    batches = Batches(run, weigh=lambda _: 1, most=1, threads=2)
    for item in range(6):
        batches.put(item)
    batches.end()
    assert sorted(seen) == list(range(6))


def configured(text: str) -> dict:
    """A configuration as Triton gives it."""
    return json.loads(text)


def test_session_options() -> None:
    """Threads and optimization level by NVIDIA's names; what cannot be is named."""
    config = configured('{"parameters": {"intra_op_thread_count": {"string_value": "3"}}}')
    assert make_options(Path("f"), config).intra_op_num_threads == 3
    for text, named in (
        ('{"parameters": {"inter_op_thread_count": {"string_value": "two"}}}', "'two'"),
        ('{"optimization": {"graph": {"level": 7}}}', "level 7"),
    ):
        with pytest.raises(CannotOpen, match=named):
            make_options(Path("f"), configured(text))


def test_providers() -> None:
    """TensorRT first if asked for, then CUDA, then the CPU; other accelerators are refused by name."""
    asked = (
        '{"optimization": {"execution_accelerators": {"gpu_execution_accelerator": '
        '[{"name": "%s", "parameters": {"precision_mode": "%s"}}]}}}'
    )
    providers = choose_providers(Path("f"), configured(asked % ("tensorrt", "FP16")), 1)
    assert [name for name, _ in providers] == [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]
    assert providers[0][1] == {"device_id": "1", "trt_fp16_enable": "1"}
    assert [name for name, _ in choose_providers(Path("f"), {}, None)] == ["CPUExecutionProvider"]
    for name, precision, named in (("openvino", "FP16", "'openvino'"), ("tensorrt", "FP8", "FP8")):
        with pytest.raises(CannotOpen, match=named):
            choose_providers(Path("f"), configured(asked % (name, precision)), 0)


def test_no_silent_fall_back(repository: Path) -> None:
    """A network that was to run on a GPU where there is none is not run on the CPU instead."""
    with pytest.raises(CannotOpen, match=r"CUDAExecutionProvider.*KIND_CPU"):
        Network(repository / "gin" / "1", {}, 0)

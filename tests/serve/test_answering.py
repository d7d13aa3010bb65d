"""Questions answered together, and features kept, without a server around them."""

import itertools
import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import OrtValue, get_available_providers
from onnxruntime.capi import _pybind_state as runtime
from PIL import Image, ImageOps

from model.checkpoint import Checkpoint
from model.preparation import InvalidInput, Preparation
from serve.answering.answerer import Answer, Answerer
from serve.answering.batches import Batches
from serve.answering.features import Features, Seen
from serve.answering.network import EXPRESSION, Network
from serve.answering.room import Room
from serve.answering.strings import read_strings
from serve.cores import cores
from serve.sessions import CannotOpen, choose_providers, make_options, open_session
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


@pytest.mark.skipif("CUDAExecutionProvider" not in get_available_providers(), reason="needs ONNX Runtime for GPUs")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(repository: Path, checkpoint: Checkpoint, picture: Image.Image) -> None:
    """Features stay there, and several images' questions are answered together."""
    network = Network(repository / "gin" / "1", {}, 0)
    network.warm_up(checkpoint.config.image_size, (1, 2))
    answerer = Answerer(checkpoint.preparation, network, Features(2**20))
    first, second = encoded(picture), encoded(ImageOps.mirror(picture))
    for _ in range(2):  # new, then known
        asked = [(first, [b"circle", b"red star"]), (second, [b"star"]), (first, [b"the blue square above"])]
        answers = answerer.answer([answerer.prepare(*question) for question in asked])
        for answer, question in zip(answers, asked, strict=True):
            assert_like_pytorch(answer, checkpoint, *question)
    assert {level.device_name() for seen in answerer.features._kept.values() for level in seen.levels} == {"cuda"}
    assert (answerer.hits, answerer.misses) == (4, 2)


def test_known_image_is_not_decoded(answerer: Answerer, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second question about the same bytes needs neither the decoder nor the image part."""
    before = answerer.answer([answerer.prepare(jpeg, [b"star"])])[0]
    monkeypatch.setattr(Preparation, "image", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(answerer.network, "encode", lambda *_: pytest.fail("encoded"))
    after = answerer.answer([answerer.prepare(jpeg, [b"star"])])[0]
    np.testing.assert_array_equal(before["boxes"], after["boxes"])
    with pytest.raises(InvalidInput, match="EXPRESSION"):
        answerer.prepare(jpeg, [b""])


def test_one_look_for_two(answerer: Answerer, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks about an image that another thread is looking at waits for its features, or hears why there are none."""
    question = answerer.prepare(jpeg, [b"star"])
    encode, looking, go = answerer.network.encode, threading.Event(), threading.Event()

    def slow(pixels: np.ndarray) -> list:
        looking.set()
        assert go.wait(10)
        return encode(pixels)

    def failing(pixels: np.ndarray) -> list:
        slow(pixels)
        raise MemoryError("no room")

    for way in (failing, slow):
        monkeypatch.setattr(answerer.network, "encode", way)
        looking.clear()
        go.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(answerer.answer, [question])
            assert looking.wait(10)
            monkeypatch.setattr(answerer.network, "encode", lambda *_: pytest.fail("encoded twice"))
            second = pool.submit(answerer.answer, [question])
            while answerer.hits == 0:
                threading.Event().wait(0.01)
            go.set()
            if way is failing:
                for answer in (first, second):
                    with pytest.raises(MemoryError):
                        answer.result(10)
            else:
                np.testing.assert_array_equal(first.result(10)[0]["boxes"], second.result(10)[0]["boxes"])
        answerer.hits = 0


def test_features_lie_in_one_block(network: Network) -> None:
    """Of each image: the smallest alone would leave holes in the heap."""
    blocks = network.encode(np.zeros((2, 64, 64, 3), np.uint8))
    for levels in blocks:
        for one, next_one in itertools.pairwise(levels):
            assert next_one.data_ptr() == one.data_ptr() + one.tensor_size_in_bytes()
    assert abs(blocks[0][0].data_ptr() - blocks[1][0].data_ptr()) >= sum(
        level.tensor_size_in_bytes() for level in blocks[0]
    )


def test_turns(answerer: Answerer, checkpoint: Checkpoint, jpeg: bytes) -> None:
    """Who is not alone gets fewer cores and answers the same."""
    network, question = answerer.network, (jpeg, [b"star", b"the red circle"])
    with network.turn():
        assert network._session(EXPRESSION) is network._alone[EXPRESSION]
        with network.turn():
            assert network._session(EXPRESSION) is network._beside[EXPRESSION]
        assert_like_pytorch(answerer.answer([answerer.prepare(*question)])[0], checkpoint, *question)
    assert network._session(EXPRESSION) is network._alone[EXPRESSION]


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


def test_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has so many places, and tells a queue that moves from one that hangs, however long nobody asked before."""
    now = 0.0
    monkeypatch.setattr("serve.answering.room.time.monotonic", lambda: now)
    room = Room(2)
    now = 1000.0
    assert (room.take(), room.take(), room.take()) == (True, True, False)
    assert room.stuck() == 0
    now = 1010.0
    assert room.stuck() == 10
    room.give_back()
    assert room.take()
    assert (room.taken, room.stuck()) == (2, 0)


def test_batches() -> None:
    """What waits is run together up to the weight, in order; a heavy item goes alone; nothing is lost."""
    seen: list[list[int]] = []

    def run(batch: list[int]) -> None:
        seen.append(batch)
        if batch == [0]:  # meanwhile others come
            for item in (1, 5, 3, 2, 64, 8, 1):
                batches.put(item)

    batches = Batches(run, weigh=lambda item: item, most=8, at_once=1)
    batches.put(0)
    assert seen == [[0], [1, 5], [3, 2], [64], [8], [1]]
    batches.put(4)
    assert seen[-1] == [4]


def test_batches_at_once() -> None:
    """Two batches run at the same time, never three, and nothing is lost."""
    seen: list[int] = []
    running, most = [], []
    both = threading.Barrier(2)

    def run(batch: list[int]) -> None:
        running.append(batch)
        both.wait(10)
        most.append(len(running))
        running.remove(batch)
        seen.extend(batch)

    batches = Batches(run, weigh=lambda _: 1, most=1, at_once=2)
    callers = [threading.Thread(target=batches.put, args=(item,)) for item in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert sorted(seen) == list(range(6))
    assert max(most) == 2


def configured(text: str) -> dict:
    """A configuration as Triton gives it."""
    return json.loads(text)


def test_session_options() -> None:
    """Threads and optimization level by NVIDIA's names; what cannot be is named."""
    config = configured('{"parameters": {"intra_op_thread_count": {"string_value": "3"}}}')
    assert make_options(Path("f"), config).intra_op_num_threads == 3
    for nothing in ({}, configured('{"parameters": {"intra_op_thread_count": {"string_value": "0"}}}')):
        assert make_options(Path("f"), nothing).intra_op_num_threads == cores()
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
    assert providers[0][1] == {"device_id": "1", "trt_fp16_enable": "True"}
    assert [name for name, _ in choose_providers(Path("f"), {}, None)] == ["CPUExecutionProvider"]
    for name, precision, named in (("openvino", "FP16", "'openvino'"), ("tensorrt", "FP8", "FP8")):
        with pytest.raises(CannotOpen, match=named):
            choose_providers(Path("f"), configured(asked % (name, precision)), 0)


@pytest.mark.skipif("TensorrtExecutionProvider" not in get_available_providers(), reason="needs ONNX Runtime for GPUs")
@pytest.mark.parametrize(("precision", "cached"), [("FP16", "1"), ("INT8", "true"), ("FP32", "0")])
def test_tensorrt_options(repository: Path, precision: str, cached: str) -> None:
    """ONNX Runtime reads what NVIDIA's backend is given, whether or not TensorRT's libraries are there."""
    parameters = {"precision_mode": precision, "trt_engine_cache_enable": cached, "max_workspace_size_bytes": "1"}
    accelerators = {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": parameters}]}
    (name, options), *_ = choose_providers(Path("f"), {"optimization": {"execution_accelerators": accelerators}}, 0)
    assert options["trt_max_workspace_size"] == "1"
    path = str(repository / "gin" / "1" / EXPRESSION)
    session = runtime.InferenceSession(runtime.get_default_session_options(), path, True, False)
    session.initialize_session([name], [options], set())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_silent_fall_back(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that was to run on a GPU where there is none is not run on the CPU instead, nor is what fails tried
    again with less."""
    with pytest.raises(CannotOpen, match=r"CUDAExecutionProvider.*KIND_CPU"):
        Network(repository / "gin" / "1", {}, 0)
    (tmp_path / "f.onnx").write_bytes(b"no network")
    with pytest.raises(CannotOpen, match="cannot be opened"):
        open_session(tmp_path / "f.onnx", {}, None)
    assert "Falling back" not in capsys.readouterr().out


def test_strings() -> None:
    """As many as are accepted are read, whatever bytes they hold; of more only the number, without making them."""
    held = [b"star", b"", b"\0\xff\0", b"a" * 300, *[b"x"] * 60]
    encoded = b"".join(struct.pack("<I", len(string)) + string for string in held)
    read = read_strings(np.frombuffer(encoded, np.uint8)).reshape([64])
    assert read.dtype == np.object_
    assert list(read) == held
    many = read_strings(np.zeros(4 * 10_000_000, np.uint8)).reshape([10_000_000])
    assert many.shape == (10_000_000,)
    assert many.strides == (0,)
    assert many[-1] == b""
    assert len(read_strings(np.zeros(0, np.uint8)).reshape([0])) == 0

"""What is answered beside the best box: whether the thing is there, and the next best boxes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from torchvision.ops import nms
from tritonclient.utils import InferenceServerException

from model.checkpoint import Checkpoint
from model.presence import Presence
from serve.answering.outputs import MOST, OVERLAP, Outputs, best_apart, iou

NAMES = ("BOX", "SCORE", "PRESENCE", "FOUND", "UNKNOWN", "TOP_BOX", "TOP_SCORE")


def ask(url: str, image: bytes, expressions: list[str], top: list[int] | None = None) -> dict[str, np.ndarray]:
    """All outputs but attention, through the server."""
    inputs = {
        "IMAGE": np.array([image], object),
        "EXPRESSION": np.array([text.encode() for text in expressions], object),
    }
    given = [triton.InferInput(name, list(array.shape), "BYTES") for name, array in inputs.items()]
    for tensor, array in zip(given, inputs.values(), strict=True):
        tensor.set_data_from_numpy(array)
    if top is not None:
        given.append(triton.InferInput("TOP_K", [len(top)], "INT32").set_data_from_numpy(np.array(top, np.int32)))
    with triton.InferenceServerClient(url) as client:
        outputs = [triton.InferRequestedOutput(name) for name in NAMES]
        result = client.infer("gin", given, outputs=outputs, client_timeout=20)
        return {name: result.as_numpy(name) for name in NAMES}


def test_served(url: str, jpeg: bytes, checkpoint: Checkpoint) -> None:
    """The best box comes first, boxes apart follow by falling score, and presence is what the checkpoint says."""
    assert checkpoint.presence is not None
    answers = ask(url, jpeg, ["the red circle", "star"], [5])
    assert answers["TOP_BOX"].shape == (2, 5, 4)
    np.testing.assert_array_equal(answers["TOP_BOX"][:, 0], answers["BOX"])
    np.testing.assert_array_equal(answers["TOP_SCORE"][:, 0], answers["SCORE"])
    assert (np.diff(answers["TOP_SCORE"]) <= 0).all()
    assert (iou(answers["TOP_BOX"])[:, *np.triu_indices(5, 1)] < OVERLAP).all()
    np.testing.assert_array_equal(answers["PRESENCE"], checkpoint.presence(answers["SCORE"]))
    np.testing.assert_array_equal(answers["FOUND"], answers["PRESENCE"] >= 0.5)
    assert answers["UNKNOWN"].tolist() == [b"", b""]
    alone = ask(url, jpeg, ["Purple STAR, far from the ☂"])
    assert alone["TOP_BOX"].shape == (1, 1, 4)
    assert alone["UNKNOWN"].tolist() == ["purple far ☂".encode()]


@pytest.mark.parametrize("top", [[0], [MOST + 1], [-1], [2, 3], []])
def test_refused_counts(url: str, jpeg: bytes, top: list[int]) -> None:
    """A number of boxes beyond the limits, or no single number, is named; the next question is answered."""
    with pytest.raises(InferenceServerException, match="TOP_K") as caught:
        ask(url, jpeg, ["star"], top)
    assert "INVALID_ARGUMENT" in str(caught.value.status())
    assert len(ask(url, jpeg, ["star"], [MOST])["TOP_SCORE"][0]) == MOST


def test_like_torchvision() -> None:
    """The boxes that torchvision's suppression keeps, in its order, zeros after them."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 40, (3, 40, 2))
    boxes = np.concatenate([corners, corners + random.uniform(20, 60, (3, 40, 2))], axis=2).astype(np.float32)
    scores = -np.sort(-random.uniform(size=(3, 40)).astype(np.float32))
    found, found_scores = best_apart(boxes, scores, 30)
    for n in range(3):
        kept = nms(torch.from_numpy(boxes[n]), torch.from_numpy(scores[n]), OVERLAP).numpy()
        assert 3 < len(kept) < 30
        np.testing.assert_array_equal(found[n, : len(kept)], boxes[n, kept])
        np.testing.assert_array_equal(found_scores[n, : len(kept)], scores[n, kept])
        assert not found[n, len(kept) :].any()
        assert not found_scores[n, len(kept) :].any()


def test_flat_boxes() -> None:
    """Boxes without area, as clipping may leave them, are answered once each."""
    found, scores = best_apart(np.zeros((1, 2, 4), np.float32), np.array([[0.5, 0.4]], np.float32), 3)
    np.testing.assert_array_equal(scores, np.array([[0.5, 0.4, 0.0]], np.float32))
    assert not found.any()


def test_not_calibrated(tmp_path: Path) -> None:
    """Without a calibration nothing is known against a thing; with one the threshold decides."""
    scores = {"scores": np.array([0.1, 0.9], np.float32)}
    answer = Outputs(tmp_path, 0.5).answer(scores, ["PRESENCE", "FOUND"], 1)
    assert np.isnan(answer["PRESENCE"]).all()
    assert answer["FOUND"].all()
    Presence(1.0, 0.0).save(tmp_path / "presence.json")
    answer = Outputs(tmp_path, 0.5).answer(scores, ["FOUND", "PRESENCE"], 1)
    assert answer["FOUND"].tolist() == [False, True]
    np.testing.assert_allclose(answer["PRESENCE"], scores["scores"], rtol=1e-6)

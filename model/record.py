"""Compare a converted network with a record of what the original authors' code answered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.answer import answer, decode_at
from model.boxes import box_iou, xyxy_to_yxyx, yxhw_to_yxyx
from model.checkpoint import Checkpoint
from model.gin import GIN
from model.loss import LossConfig, grounding_loss
from model.original import Architecture, architecture_of
from model.targets import attention_targets

TOLERANCE = 1e-4  # times max(1, largest absolute value of the recorded array)
BOX_TOLERANCE = 0.05  # pixels
RIGHT_IOU = 0.5
QUESTION = ("image_seed", "word_vectors", "lengths", "boxes_xyxy", "image_hw")  # the rest of a record is the answer


class InvalidRecord(ValueError):
    """A file that is not a record; the message names the file and the cause."""


def check_record(checkpoint: Checkpoint, path: str | Path) -> dict[str, Any]:
    """Answer a record's question and compare every array: {name: largest absolute difference}, and `passed`.

    The record's own input size is used, whatever the checkpoint's. Raises InvalidRecord, and ValueError where the
    checkpoint holds none of the authors' networks.
    """
    architecture = architecture_of(checkpoint.config)
    if architecture is None:
        raise ValueError("the checkpoint holds none of the original authors' networks, so no record is of it")
    record = _read(path, checkpoint.config.word_width)
    answers = _answers(checkpoint, architecture, record)
    expected = {name: array for name, array in record.items() if name not in QUESTION}
    unknown = [name for name in expected if name not in answers]
    if unknown:
        raise InvalidRecord(f"{path} holds {', '.join(unknown)}, which the checkpoint's network does not answer")
    differences = {}
    passed = True
    for name, theirs in expected.items():
        ours = answers[name]
        if ours.shape != theirs.shape:
            raise InvalidRecord(f"{path}: {name} has shape {theirs.shape}, the network gives {ours.shape}")
        difference = float(np.abs(ours - theirs).max())
        largest = float(np.abs(theirs).max())
        limit = BOX_TOLERANCE if name == "pred_boxes_xyxy" else TOLERANCE * max(1.0, largest)
        differences[name] = difference
        passed &= difference <= limit  # false for NaN
    return differences | {"passed": passed}


def _read(path: str | Path, word_width: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            record = dict(arrays)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy raises ValueError, BadZipFile, EOFError and others
        raise InvalidRecord(f"{path} cannot be read as a record: {error}") from None
    question = QUESTION if "boxes_xyxy" in record else QUESTION[:3]
    missing = [name for name in (*question, "score_logits") if name not in record]
    if missing:
        raise InvalidRecord(f"{path} is not a record: it lacks {', '.join(missing)}")
    N, T = (*record["word_vectors"].shape, 0, 0)[:2]
    shapes = {"image_seed": (2,), "word_vectors": (N, T, word_width), "lengths": (N,), "boxes_xyxy": (N, 4),
              "image_hw": (N, 2)}  # fmt: skip
    for name in question:
        if record[name].shape != shapes[name]:
            raise InvalidRecord(f"{path}: {name} has shape {record[name].shape} and not {shapes[name]}")
    for name, array in record.items():
        kind, numbers = (np.integer, "integers") if name in ("image_seed", "lengths") else (np.number, "numbers")
        if not np.issubdtype(array.dtype, kind):
            raise InvalidRecord(f"{path}: {name} holds {array.dtype} and no {numbers}")
    lengths = record["lengths"]
    if not N or lengths.min() < 1 or lengths.max() > T:
        raise InvalidRecord(f"{path}: lengths are {lengths.tolist()}; each must be from 1 to {T}")
    return record


def _answers(
    checkpoint: Checkpoint, architecture: Architecture, record: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What our network says to the record's question, under the record's names."""
    size = int(record["image_seed"][1])
    config = replace(checkpoint.config, image_size=size, pyramid_levels=architecture.levels_at(size))
    network = GIN(config, len(checkpoint.vocabulary)).eval()
    network.load_state_dict(checkpoint.weights)
    pyramids: list[list[Tensor]] = []
    network.head.register_forward_pre_hook(lambda _, arguments: pyramids.append(arguments[0]))
    vectors = torch.from_numpy(record["word_vectors"]).float()
    lengths = torch.from_numpy(record["lengths"]).long()
    with torch.inference_mode():
        language = network.expression.encode_words(vectors, lengths)
        features = network.encode_image(_images(record["image_seed"].tolist(), len(vectors)))
        grounding = network.ground(features, language, torch.arange(len(vectors)))
        result: dict[str, Tensor] = {
            "language": language,
            "score_logits": grounding.score_logits,
            "box_deltas": grounding.box_deltas,
            "feature_sizes": torch.tensor([level.shape[2:] for level in pyramids[0]]),
        }
        result |= {f"attention_logits_{i}": logits for i, logits in enumerate(grounding.attention_logits)}
        if "boxes_xyxy" in record:
            sizes = torch.from_numpy(record["image_hw"]).double()
            boxes = xyxy_to_yxyx(torch.from_numpy(record["boxes_xyxy"]).double(), sizes).float()
            targets = attention_targets(boxes, size)
            chosen = answer(grounding, sizes)
            iou = box_iou(boxes[:, None], yxhw_to_yxyx(grounding.anchors)[None])
            reachable = decode_at(grounding, iou.argmax(dim=1), sizes)
            truth = torch.from_numpy(record["boxes_xyxy"]).float()
            result |= {f"attention_target_{i}": target for i, target in enumerate(targets)}
            result |= {
                "annot_yxyx_norm": boxes,
                "loss": torch.stack(list(grounding_loss(grounding, boxes, targets, LossConfig()))),
                "pred_boxes_xyxy": chosen.boxes,
                "pred_scores": chosen.scores,
                "accuracy": (box_iou(chosen.boxes, truth) >= RIGHT_IOU).float().mean(),
                "max_accuracy": (box_iou(reachable, truth) >= RIGHT_IOU).float().mean(),
            }
    return {name: tensor.double().numpy() for name, tensor in result.items()}


def _images(seed: list[int], count: int) -> Tensor:
    """The record's made-up images: float32 (count, 3, size, size) in 0..1, for seed = [seed, size]."""
    size = seed[1]
    return torch.from_numpy(np.random.default_rng(seed).random((count, 3, size, size), dtype=np.float32))

"""The proof beside every exported file: it answers as the checkpoint does."""

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from export.served import ServedNetwork, make_question
from model.boxes import box_iou
from model.checkpoint import Checkpoint

SCORE_LIMIT = 1e-4
BOX_LIMIT = 0.05  # pixels

Runner = Callable[[tuple[np.ndarray, ...]], list[np.ndarray]]


class ParityError(RuntimeError):
    """An exported file answers differently from its checkpoint; the message says by how much and where."""


def check_parity(checkpoint: Checkpoint, run: Runner) -> dict[str, Any]:
    """Ask the file and the network the same made-up questions: several batches, word counts and images.

    run: inputs as arrays, in the order of `export.served.INPUTS`, to the outputs. Returns the report.
    Raises ParityError unless scores agree within 1e-4, boxes within 0.05 pixels, and the same anchor always wins.
    """
    network = ServedNetwork(checkpoint.network())
    longest = checkpoint.config.max_words
    cases = [(1, [1]), (1, [longest]), (1, [3, 1, 5]), (2, [2, 4]), (3, [1, 2, longest // 2, longest, 2, 7]), (4, [6])]
    report: dict[str, Any] = {"questions": [], "boxes": 0.0, "scores": 0.0, "attention": 0.0}
    same, total, ious = 0, 0, []
    for seed, (images, lengths) in enumerate(cases):
        question = make_question(checkpoint, images, lengths, seed)
        theirs = run(tuple(tensor.numpy() for tensor in question.tensors))
        with torch.inference_mode():
            ours = [tensor.numpy() for tensor in network(*question.tensors)]
        report["questions"].append({"images": images, "lengths": lengths})
        for name, a, b in zip(("boxes", "scores", "attention"), ours, theirs, strict=False):
            if a.shape != b.shape:
                raise ParityError(f"{name} has shape {b.shape}, not {a.shape}, for {images} images, words {lengths}")
            report[name] = max(report[name], float(np.abs(a - b).max()))
        same += int((ours[3] == theirs[3]).sum())
        total += len(lengths)
        ious.append(box_iou(torch.from_numpy(ours[0]), torch.from_numpy(theirs[0])).min().item())
    report |= {"same_anchor": same / total, "lowest_iou": min(ious), "torch": torch.__version__}
    report |= {"python": platform.python_version(), "limits": {"scores": SCORE_LIMIT, "boxes": BOX_LIMIT}}
    passed = report["boxes"] <= BOX_LIMIT and report["scores"] <= SCORE_LIMIT and report["attention"] <= SCORE_LIMIT
    if not passed or same < total:
        raise ParityError(
            f"the exported file answers differently: boxes by {report['boxes']:.3g} pixels, scores by "
            f"{report['scores']:.3g}, attention by {report['attention']:.3g}, same anchor {same} of {total}"
        )
    return report

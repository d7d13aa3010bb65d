"""From a checkpoint to files that were compared with it."""

import dataclasses
import hashlib
import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.formats import PRESENCE, VOCABULARY, Format
from export.graphs import GRAPHS, Graph, make_graphs
from export.manifest import Recorded, save_questions, write_manifest
from export.parity import Comparison, Limits, Runner, check_report
from export.precision import KEPT, lower
from export.progress import say
from export.questions import Example, Question, arrays, made_up_questions, make_question
from export.rewrite import rewrite, rewritings_for
from model.boxes import box_iou
from model.checkpoint import Checkpoint
from model.original import resized

RECORDED = 2  # questions


@dataclass(frozen=True)
class Request:
    """What to export. checkpoint, sha256: from `read_checkpoint`. limits: what is accepted. test: examples whose
    accuracy is compared too. calibration: real questions that int8 needs."""

    checkpoint: Checkpoint
    sha256: str
    precision: str
    limits: Limits
    test: Sequence[Example] = ()
    calibration: Sequence[Question] = ()


def read_checkpoint(path: Path, size: int | None = None) -> tuple[Checkpoint, str]:
    """A checkpoint and the SHA-256 of its file. size: side of the input in pixels, unless it is as trained. Raises
    ValueError, InvalidCheckpoint or OSError."""
    data = path.read_bytes()  # once, for a training run may replace the file at any time
    checkpoint, sha256 = Checkpoint.load(path, data), hashlib.sha256(data).hexdigest()
    if size is not None:
        checkpoint = dataclasses.replace(checkpoint, config=resized(checkpoint.config, size))
    return checkpoint, sha256


def build(request: Request, kind: Format, folder: Path, names: Collection[str] = GRAPHS) -> dict[str, Any]:
    """Write graphs, their recorded questions and the manifest into an empty folder; returns what the manifest says of
    them. names: which of `GRAPHS`; the expression part needs the image part. Raises ParityError, ValueError or OSError.
    """
    checkpoint = request.checkpoint
    original = make_graphs(checkpoint.network())
    image_size = checkpoint.config.image_size
    facts = {"checkpoint": request.sha256, "precision": request.precision, "image_size": image_size}
    rewritings = rewritings_for(request.precision)
    exported = make_graphs(lower(rewrite(checkpoint.network(), rewritings), request.precision))
    exported = {name: exported[name] for name in names}
    question = make_question(checkpoint, images=2, lengths=[1, 4, 7], seed=0)
    example = question | original["gin_image"](question)
    for name, graph in exported.items():
        say(f"writing {name}{kind.suffix}")
        inside = {"graph": name, **{key: str(value) for key, value in facts.items()}}
        kind.write(graph, example, folder / f"{name}{kind.suffix}", inside)
    questions, more = list(made_up_questions(checkpoint)), {}
    if request.precision == "int8":
        assert kind.quantize
        say("quantizing")
        questions = list(request.calibration)  # noise is beyond what was calibrated
        more = kind.quantize(folder, questions, request.limits)
    say("comparing the files with the checkpoint")
    runners = {
        name: kind.open(folder / f"{name}{kind.suffix}", graph.inputs, graph.outputs)
        for name, graph in exported.items()
    }
    parity = compare(original, runners, questions, request.test)
    for report in parity.values():
        check_report(report, request.limits)
    for name, recorded in record(exported, runners, questions).items():
        save_questions(folder / f"{name}.questions.npz", recorded)
    checkpoint.preparation.save(folder / VOCABULARY)
    if checkpoint.presence is not None:
        checkpoint.presence.save(folder / PRESENCE)
    described = {
        name: {"file": f"{name}{kind.suffix}", "questions": f"{name}.questions.npz", "inputs": graph.inputs,
               "outputs": graph.outputs, "parity": parity[name]}
        for name, graph in exported.items()
    }  # fmt: skip
    facts |= {"kind": kind.name, "rewritings": rewritings, "limits": dataclasses.asdict(request.limits)}
    facts |= {"kept_in_fp32": list(KEPT) if request.precision in ("fp16", "bf16") else [], **more}
    facts |= {"versions": {"python": platform.python_version(), "torch": torch.__version__, **kind.versions()}}
    write_manifest(folder, facts, described)
    return {**facts, "graphs": described}


def compare(
    original: dict[str, Graph], runners: dict[str, Runner], questions: Sequence[Question], test: Sequence[Example]
) -> dict[str, dict[str, float]]:
    """Ask the network and the files the same; the expression part is given the features of the image part's file.
    Returns a report for each file."""
    comparisons = {name: Comparison() for name in runners}
    for question in [*questions, *(example.question for example in test)]:
        asked = arrays(question)
        features = original["gin_image"](question)
        expected = arrays(features) | arrays(original["gin_expression"](question | features))
        for name, answers in ask(runners, asked).items():
            comparisons[name].add({output: expected[output] for output in answers}, answers)
    reports = {name: comparison.report() for name, comparison in comparisons.items()}
    if test:
        before = accuracy(lambda question: original["gin"](question)["boxes"], test)
        after = accuracy(lambda question: torch.from_numpy(runners["gin"](arrays(question))["boxes"]), test)
        reports["gin"] |= {"accuracy": after, "accuracy_fp32": before, "accuracy_drop": before - after}
    return reports


def ask(runners: dict[str, Runner], asked: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The answers of each file to one question; the expression part is given the image part's features."""
    answers: dict[str, dict[str, np.ndarray]] = {}
    for name, run in runners.items():
        answers[name] = run(asked | answers["gin_image"] if name == "gin_expression" else asked)
    return answers


def accuracy(find: Callable[[Question], Tensor], test: Sequence[Example]) -> float:
    """Share of expressions whose box has IoU of at least 0.5 with the true one. find: boxes that answer a question."""
    hits = [box_iou(find(example.question), example.boxes) >= 0.5 for example in test]
    return float(torch.cat(hits).float().mean())


def record(graphs: dict[str, Graph], runners: dict[str, Runner], questions: Sequence[Question]) -> dict[str, Recorded]:
    """Questions to be asked again where the files are deployed, with the answers given here."""
    recorded: dict[str, Recorded] = {name: [] for name in graphs}
    for question in questions[:RECORDED]:
        asked = arrays(question)
        answers = ask(runners, asked)
        for name, graph in graphs.items():
            if name == "gin" or not recorded[name]:  # features are large: once is enough
                given = asked | answers.get("gin_image", {})
                recorded[name].append(({key: given[key] for key in graph.inputs}, answers[name]))
    return recorded

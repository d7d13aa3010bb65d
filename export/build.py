"""From a checkpoint to files that were compared with it, in a folder where nothing is kept unless all of it holds."""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.configurations import ENTRY, update_configuration
from export.formats import PRESENCE, VOCABULARY, Format
from export.graphs import GRAPHS, Graph, make_graphs
from export.manifest import (
    MANIFEST,
    InvalidExport,
    Recorded,
    is_version,
    named_files,
    read_manifest,
    save_questions,
    write_manifest,
)
from export.parity import Comparison, Limits, Runner, check_report
from export.precision import KEPT, lower
from export.questions import Example, Question, arrays, made_up_questions, make_question
from export.rewrite import rewrite, rewritings_for
from model.boxes import box_iou
from model.checkpoint import Checkpoint
from model.original import resized

STAGING = ".export-"
RECORDED = 2  # questions


@dataclass(frozen=True)
class Request:
    """What to export. path: of the checkpoint. size: side of the input in pixels, or as trained. limits: what is
    accepted. test: examples whose accuracy is compared too. calibration: real questions that int8 needs."""

    path: Path
    precision: str
    limits: Limits
    size: int | None = None
    test: Sequence[Example] = ()
    calibration: Sequence[Question] = ()

    def load(self) -> tuple[Checkpoint, str]:
        """The checkpoint at the wanted size, and the SHA-256 of its file. Raises ValueError, InvalidCheckpoint or
        OSError."""
        data = self.path.read_bytes()  # once, for a training run may replace the file at any time
        checkpoint, sha256 = Checkpoint.load(self.path, data), hashlib.sha256(data).hexdigest()
        if self.size is not None:
            checkpoint = dataclasses.replace(checkpoint, config=resized(checkpoint.config, self.size))
        return checkpoint, sha256


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A folder inside `target` for files that are not to be believed yet; it is removed at the end, and what a killed
    export left behind with it. Of several exports into `target` one waits for the other."""
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        for leftover in target.glob(f"{STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=target, prefix=STAGING))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder itself, so that no file of a lock is left in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another export into {folder}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system that locks no folders, such as NFS; there nobody waits
            pass
        yield
    finally:
        os.close(handle)


def build(request: Request, kind: Format, folder: Path, names: Collection[str] = GRAPHS) -> dict[str, Any]:
    """Write graphs, their recorded questions and the manifest into an empty folder; returns what the manifest says of
    them. names: which of `GRAPHS`; the expression part needs the image part. Raises ParityError, ValueError or OSError.
    """
    checkpoint, sha256 = request.load()
    original = make_graphs(checkpoint.network())
    facts = {"checkpoint": sha256, "precision": request.precision, "image_size": checkpoint.config.image_size}
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


def say(step: str) -> None:
    """What takes a minute says so to whoever watches."""
    if sys.stderr.isatty():
        print(f"{step} ...", file=sys.stderr, flush=True)


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


def publish(folder: Path, target: Path) -> None:
    """Move all files of a staged folder into `target`, the manifest last, and remove what the former manifest named and
    this one does not. Killed in between, the former manifest names files that are gone or others by now."""
    target.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()} - {MANIFEST}
    stale = named_files(target) - names
    for name in sorted(names):
        os.replace(folder / name, target / name)
    for path in target.iterdir():
        if path.name in stale and path.is_file():
            path.unlink()
    os.replace(folder / MANIFEST, target / MANIFEST)


def publish_models(folder: Path, report: dict[str, Any], kind: Format, repository: Path) -> list[Path]:
    """Make the staged files a new version of the models of a Triton repository that serve them; returns where they are.

    Of older versions the last good one is kept, and so is a configuration that somebody edited. A version appears whole
    or not at all.
    """
    facts = {name: value for name, value in report.items() if name != "graphs"}
    suffix = "" if report["precision"] == "fp32" else f"_{report['precision']}"
    places = []
    for model, parts in kind.models.items():
        staged = folder / model
        staged.mkdir()
        graphs = {}
        for part, name in parts.items():
            if part in report["graphs"]:
                served = {"file": f"{name}{kind.suffix}", "questions": f"{name}.questions.npz"}
                graphs[part] = report["graphs"][part] | served
                shutil.copyfile(folder / report["graphs"][part]["questions"], staged / served["questions"])
                os.replace(folder / report["graphs"][part]["file"], staged / served["file"])
            elif (folder / part).exists():
                os.replace(folder / part, staged / name)
        if model == "gin":
            (staged / "model.py").write_text(ENTRY, encoding="utf-8")
        write_manifest(staged, facts, graphs)
        update_configuration(repository / f"{model}{suffix}", model, report["image_size"])
        places.append(add_version(staged, repository / f"{model}{suffix}"))
    return places


def add_version(staged: Path, model: Path) -> Path:
    """Make a folder the newest version of a model. All others but the last whose files verify take its place beside
    other staged files, to be removed with them: so each is there whole or not at all, even where a server left in it
    what only the server's user may remove."""
    versions = sorted(filter(is_version, model.iterdir()), key=lambda path: int(path.name))
    newest = model / str(int(versions[-1].name) + 1 if versions else 1)
    os.replace(staged, newest)
    good = next((path for path in reversed(versions) if _verifies(path)), None)
    for path in versions:
        if path != good:
            os.replace(path, staged.with_name(f"{model.name}.{path.name}"))
    return newest


def _verifies(version: Path) -> bool:
    try:
        read_manifest(version)
    except (InvalidExport, OSError):
        return False
    return True

"""Turn a checkpoint of the original authors (GIN, ZSGNet) into ours, and prove that it answers the same.

    python -m model.convert ORIGINAL.pth OUT.pth [--word-vectors FILE] [--size PIXELS] [--check RECORD.npz]

Which network it holds is told by its tensors' names: GIN with ResNet-50, ZSGNet with ResNet-50 or with SSD-VGG16.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from model.checkpoint import Checkpoint, InvalidCheckpoint, load_plain
from model.command import run_command
from model.original import EMBEDDING, Architecture, recognise
from model.settings import InvalidSettings, configure
from model.word_vectors import fill_embedding, read_word_vectors
from model.words import Vocabulary


def original_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The authors' tensors, without the `module.` that a parallel network puts before their names, and their settings.

    Opened without executing anything the file names. Raises InvalidCheckpoint.
    """
    content = load_plain(path)
    weights = content.get("model_state_dict")
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise InvalidCheckpoint(f"{path} has no model_state_dict of tensors, as the authors' checkpoints have")
    try:
        settings = json.loads(content.get("cfgtxt", "{}"))
    except (TypeError, json.JSONDecodeError) as error:
        raise InvalidCheckpoint(f"{path}: its configuration (cfgtxt) is not JSON: {error}") from None
    plain = {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}
    return plain, settings if isinstance(settings, dict) else {}


def convert_weights(theirs: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Their tensors, from `original_weights`, under our names; no embedding is among them.

    Raises InvalidCheckpoint that lists every missing, extra and misshapen tensor by the authors' names.
    """
    problems = architecture.problems(theirs)
    if problems:
        listing = "\n  ".join(problems)
        raise InvalidCheckpoint(f"these are not the tensors of the authors' {architecture.title}:\n  {listing}")
    return {ours: theirs[name] for ours, name in architecture.names().items()}


def convert(path: str | Path, image_size: int | None = None, word_vectors: str | Path | None = None) -> Checkpoint:
    """The authors' checkpoint as ours.

    image_size: side of the input in pixels; by default what the checkpoint's own configuration says, else the one that
    the authors published this network with. word_vectors: text file of 300-d word vectors; without it every word is
    unknown. Raises InvalidCheckpoint, and ValueError for a size that the network cannot have.
    """
    weights, settings = original_weights(path)
    architecture = recognise(weights)
    converted = convert_weights(weights, architecture)
    try:
        config = configure(architecture, settings, image_size)
    except InvalidSettings as error:
        raise InvalidCheckpoint(f"{path} cannot be converted: in its configuration (cfgtxt) {error}") from None
    vocabulary, vectors = Vocabulary([]), None
    if word_vectors is not None:
        words, vectors = read_word_vectors(word_vectors, config.word_width)
        vocabulary = Vocabulary(words)
    embedding = nn.Embedding(len(vocabulary), config.word_width)
    fill_embedding(embedding, vectors)
    return Checkpoint(config, vocabulary, converted | {EMBEDDING: embedding.weight.detach()})


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.convert", description=__doc__.splitlines()[0])
    parser.add_argument("original", metavar="ORIGINAL.pth", help="checkpoint of the original authors")
    parser.add_argument("out", metavar="OUT.pth", help="where to write ours")
    vectors = "those that it was trained with, as text, 300 numbers a word (docs/export.md); others answer wrongly"
    parser.add_argument("--word-vectors", metavar="FILE", help=vectors)
    parser.add_argument("--size", type=int, metavar="PIXELS", help="input size (default: what the checkpoint says)")
    parser.add_argument("--check", metavar="RECORD.npz", help="compare with a record of the original's answers")
    arguments = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _convert(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    checkpoint = convert(arguments.original, arguments.size, arguments.word_vectors)
    if arguments.check:
        from model.record import check_record  # kept apart: only this option reads records

        report = check_record(checkpoint, arguments.check)
        print(json.dumps(report))
        if not report["passed"]:
            return 1
    checkpoint.save(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

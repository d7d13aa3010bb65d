"""Turn the original authors' GIN checkpoint into ours, and prove that it answers the same.

python -m model.convert ORIGINAL.pth OUT.pth [--word-vectors FILE] [--size PIXELS] [--check RECORD.npz]
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint import Checkpoint, InvalidCheckpoint, load_plain
from model.config import ModelConfig
from model.gin import GIN
from model.word_vectors import fill_embedding, read_word_vectors
from model.words import Vocabulary

# Our names, theirs. First match counts; what matches none has the same name in both.
NAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.body\.(.*)", r"backbone.encoder.\1"),
    (r"afs\.(\d)\.branches\.(\d)\.(.*)", r"backbone.afs_stage\1.afs_modules.\2.\3"),
    (r"afs\.(\d)\.weights\.(.*)", r"backbone.afs_stage\1.afs_weights.\2"),
    (r"garan\.(\d)\.query\.(.*)", r"backbone.garan_stage\1.w_qs.\2"),
    (r"garan\.(\d)\.collect_key\.(.*)", r"backbone.garan_stage\1.w_kc.\2"),
    (r"garan\.(\d)\.diffuse_key\.(.*)", r"backbone.garan_stage\1.w_kd.\2"),
    (r"garan\.(\d)\.value\.(.*)", r"backbone.garan_stage\1.w_vs.\2"),
    (r"garan\.(\d)\.norm\.(.*)", r"backbone.garan_stage\1.layer_norm.\2"),
    (r"fpn\.lateral\.0\.(.*)", r"backbone.fpn.P3_1.\1"),
    (r"fpn\.lateral\.1\.(.*)", r"backbone.fpn.P4_1.\1"),
    (r"fpn\.lateral\.2\.(.*)", r"backbone.fpn.P5_1.\1"),
    (r"fpn\.smooth\.0\.(.*)", r"backbone.fpn.P3_2.\1"),
    (r"fpn\.smooth\.1\.(.*)", r"backbone.fpn.P4_2.\1"),
    (r"fpn\.smooth\.2\.(.*)", r"backbone.fpn.P5_2.\1"),
    (r"fpn\.p6\.(.*)", r"backbone.fpn.P6.\1"),
    (r"fpn\.p7\.(.*)", r"backbone.fpn.P7_2.\1"),
    (r"head\.hidden\.(\d)\.(.*)", r"att_reg_box.\1.0.\2"),
    (r"head\.output\.(.*)", r"att_reg_box.5.\1"),
    (r"expression\.backward_lstm\.(.*)", r"lstm.\1_reverse"),
    (r"expression\.forward_lstm\.(.*)", r"lstm.\1"),
)
UNUSED = ("backbone.encoder.fc.weight", "backbone.encoder.fc.bias")  # the classifier that came with the ResNet
EMBEDDING = "expression.embedding.weight"
COARSE_SIZES = (600, 608)  # input sizes at which the authors leave the finest and the last level out


def original_config(image_size: int) -> ModelConfig:
    """The authors' GIN with ResNet-50 at an input size.

    Their pinned Pillow (before 7.0) resizes with nearest neighbours, which their checkpoints were trained on.
    """
    levels = (4, 5, 6, 7) if image_size in COARSE_SIZES else (3, 4, 5, 6, 7, 8)
    return ModelConfig(image_size=image_size, pyramid_levels=levels, transposed_diffusion=True, resize_filter="nearest")


def original_name(name: str) -> str:
    """The authors' name of one of our tensors."""
    for pattern, theirs in NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, theirs, name)
    return name


def convert_weights(theirs: dict[str, Tensor], network: GIN) -> dict[str, Tensor]:
    """Their tensors under our names, checked against `network`; its embedding is kept.

    Raises InvalidCheckpoint that lists every missing, extra and misshapen tensor by the authors' names.
    """
    theirs = {name.removeprefix("module."): tensor for name, tensor in theirs.items()}
    expected = {original_name(name): name for name in network.state_dict() if name != EMBEDDING}
    ours = network.state_dict()
    problems = [f"missing: {name}" for name in expected if name not in theirs]
    problems += [f"extra: {name}" for name in theirs if name not in expected and name not in UNUSED]
    for name in expected.keys() & theirs.keys():
        got, wanted = list(theirs[name].shape), list(ours[expected[name]].shape)
        if got != wanted:
            problems.append(f"misshapen: {name} is {got}, expected {wanted}")
    if problems:
        listing = "\n  ".join(sorted(problems))
        raise InvalidCheckpoint(f"these are not the tensors of the authors' GIN with ResNet-50:\n  {listing}")
    return {our_name: theirs[name] for name, our_name in expected.items()} | {EMBEDDING: ours[EMBEDDING]}


def original_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The authors' tensors and their configuration, opened without executing anything the file names."""
    content = load_plain(path)
    weights = content.get("model_state_dict")
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise InvalidCheckpoint(f"{path} has no model_state_dict of tensors, as the authors' checkpoints have")
    try:
        settings = json.loads(content.get("cfgtxt", "{}"))
    except (TypeError, json.JSONDecodeError) as error:
        raise InvalidCheckpoint(f"{path}: its configuration (cfgtxt) is not JSON: {error}") from None
    return weights, settings if isinstance(settings, dict) else {}


def convert(path: str | Path, image_size: int | None = None, word_vectors: str | Path | None = None) -> Checkpoint:
    """The authors' checkpoint as ours.

    image_size: side of the input in pixels; by default what the checkpoint's own configuration says, else 320.
    word_vectors: text file of 300-d word vectors; without it every word is unknown.
    """
    weights, settings = original_weights(path)
    if image_size is None:
        resized = settings.get("resize_img")
        image_size = int(resized[0]) if isinstance(resized, list) and resized else 320
    config = original_config(image_size)
    vocabulary, vectors = Vocabulary([]), None
    if word_vectors is not None:
        words, vectors = read_word_vectors(word_vectors, config.word_width)
        vocabulary = Vocabulary(words)
    network = GIN(config, len(vocabulary))
    fill_embedding(network.expression.embedding, vectors)
    return Checkpoint(config, vocabulary, convert_weights(weights, network))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.convert", description=__doc__.splitlines()[0])
    parser.add_argument("original", metavar="ORIGINAL.pth", help="checkpoint of the original authors")
    parser.add_argument("out", metavar="OUT.pth", help="where to write ours")
    parser.add_argument("--word-vectors", metavar="FILE", help="GloVe or word2vec text file, 300 numbers a word")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="input size (default: what the checkpoint says)")
    parser.add_argument("--check", metavar="RECORD.npz", help="compare with a record of the original's answers")
    arguments = parser.parse_args(argv)
    try:
        checkpoint = convert(arguments.original, arguments.size, arguments.word_vectors)
        if arguments.check:
            from model.record import check_record  # kept apart: only this option reads records

            report = check_record(checkpoint, arguments.check)
            print(json.dumps(report))
            if not report["passed"]:
                return 1
        checkpoint.save(arguments.out)
    except (OSError, ValueError) as error:
        print(f"python -m model.convert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

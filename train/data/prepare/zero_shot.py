"""Flickr-Split-0 and -1: what is tested was never named, or is of a kind that was never shown, in training.

After the ZSGNet paper (Sadhu et al., 2019, section 4.1). The authors' own splits hang on the lemmas of one release of
spaCy and on files they did not publish; these follow the same rules. The authors' ready-made CSVs train as they are.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from model.words import split_words
from train.data.prepare import flickr30k
from train.data.prepare.lemmas import lemma
from train.data.prepare.tables import Annotation, Splits

COMMON = 500  # most common lemmas, all seen in training
SEEN = 0.7  # share of the other lemmas that are seen
TRAIN = 0.8  # share of the pictures left for training and validation
SEED = 5
# Of Flickr30k Entities' categories. ZSGNet's author: "For case1, we just remove instances of "other" for seen, and use
# only those instances in the unseen" (github.com/TheShadow29/zsgnet-pytorch/issues/10).
UNSEEN_CATEGORIES = ("other",)


def prepare(name: str, source: Path) -> Splits:
    """Split Flickr30k Entities anew. c0: an expression is tested if the lemma of its last word is unseen. c1: an entity
    is tested if its category is unseen. No picture of a test is in training, nor any expression with an unseen lemma or
    entity of an unseen category in training or validation. Raises InvalidData or OSError."""
    whole = flickr30k.prepare(source)
    annotations = [one for split in flickr30k.SPLITS for one in whole.annotations.get(split, [])]
    splits = _by_word(annotations) if name == "flickr30k_c0" else _by_category(annotations)
    for (_, reason), count in whole.dropped.items():
        splits.dropped["any split", reason] += count
    return splits


def _by_word(annotations: list[Annotation]) -> Splits:
    texts = [expression for one in annotations for expression in one.expressions]
    counts = Counter(lemma(word) for text in texts for word in split_words(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    rest = ranked[COMMON:]
    order = np.random.default_rng(SEED).permutation(len(rest))
    unseen = {rest[index] for index in order[int(SEEN * len(rest)) :]}

    def tested(expression: str) -> bool:
        words = [word for word in split_words(expression) if len(word) > 1]
        return bool(words) and lemma(words[-1]) in unseen

    def allowed(expression: str) -> bool:
        return not unseen.intersection(map(lemma, split_words(expression)))

    return _split(
        annotations, lambda one: filter(tested, one.expressions), lambda one: filter(allowed, one.expressions)
    )


def _by_category(annotations: list[Annotation]) -> Splits:
    def of_unseen(one: Annotation) -> Iterable[str]:
        return one.expressions if one.category in UNSEEN_CATEGORIES else ()

    return _split(annotations, of_unseen, lambda one: () if one.category in UNSEEN_CATEGORIES else one.expressions)


def _split(
    annotations: list[Annotation],
    tested: Callable[[Annotation], Iterable[str]],
    allowed: Callable[[Annotation], Iterable[str]],
) -> Splits:
    """tested, allowed: which of an annotation's expressions are for the test, or may be seen in training."""
    splits = Splits({"train": [], "val": [], "test": []})
    for one in annotations:
        expressions = tuple(dict.fromkeys(tested(one)))
        if expressions:
            splits.add("test", dataclasses.replace(one, expressions=expressions))
    of_test = {one.image for one in splits.annotations["test"]}
    rest = sorted({one.image for one in annotations} - of_test)
    order = np.random.default_rng(SEED).permutation(len(rest))
    for_training = {rest[index] for index in order[: int(TRAIN * len(rest))]}
    for one in annotations:
        if one.image not in of_test:
            split = "train" if one.image in for_training else "val"
            expressions = tuple(allowed(one))
            if expressions:
                splits.add(split, dataclasses.replace(one, expressions=expressions))
            else:
                splits.drop(split, "unseen in training by the rule of the split")
    return splits

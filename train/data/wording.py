"""Random expressions about a scene, in words."""

import numpy as np

from train.data.expressions import AXES, RELATIONS, Group, Meaning, word_decides
from train.data.world import Scene, Thing

KINDS = {  # how often each is tried
    "attributes": 0.34,
    "extreme": 0.13,
    "corner": 0.07,
    "relation": 0.21,
    "closest": 0.09,
    "ordinal": 0.08,
    "superlative": 0.08,
}
ORDINALS = {2: "second", 3: "third"}
TRIES = 500  # per scene, before it is given up
PATIENCE = 40  # tries of one kind, before another is drawn


def describe(scene: Scene, count: int, random: np.random.Generator) -> list[tuple[str, Meaning, Thing]] | None:
    """`count` expressions of different meaning, each with its meaning and the thing meant, about two things or more.

    None if the scene does not give as many.
    """
    found: dict[Meaning, tuple[str, Meaning, Thing]] = {}
    named = dict.fromkeys(scene.things, 0)
    most = 2 + count // len(scene.things)  # expressions about one thing
    kinds, shares = list(KINDS), list(KINDS.values())
    kind = ""
    for attempt in range(TRIES):
        if attempt % PATIENCE == 0 or not kind:
            kind = str(random.choice(kinds, p=shares))
        meaning = _propose(kind, scene, random)
        target = meaning.pick(scene)
        if target is None or meaning in found or named[target] >= most or word_decides(meaning, scene, target):
            continue
        found[meaning] = (_word(meaning, random), meaning, target)
        named[target] += 1
        kind = ""
        if len(found) == count:
            several = sum(times > 0 for times in named.values()) >= 2
            return list(found.values()) if several else None
    return None


def describe_absent(scene: Scene, other: Scene, count: int, random: np.random.Generator) -> list[str]:
    """At most `count` expressions that say something of another scene but name nothing in this one."""
    return [
        words
        for words, meaning, _ in describe(other, count, random) or []
        if not meaning.group.of(scene) or (meaning.reference is not None and not meaning.reference.of(scene))
    ]


def _propose(kind: str, scene: Scene, random: np.random.Generator) -> Meaning:
    """A meaning of a kind, about properties that some thing has; it may pick nothing."""
    thing = scene.things[random.integers(len(scene.things))]
    if kind == "attributes":
        return Meaning(kind, _group(thing, random, at_least=2))
    group = _group(thing, random, at_least=0)
    if kind in ("relation", "closest"):
        other = scene.things[random.integers(len(scene.things))]
        where = str(random.choice(list(RELATIONS))) if kind == "relation" else "closest to"
        return Meaning(kind, group, where, reference=_group(other, random, at_least=1))
    if kind == "superlative":
        return Meaning(kind, Group(None, group.colour, group.shape), str(random.choice(["largest", "smallest"])))
    if kind == "corner":
        return Meaning(kind, group, f"{random.choice(['top', 'bottom'])} {random.choice(['left', 'right'])}")
    rank = int(random.choice(list(ORDINALS), p=[0.75, 0.25])) if kind == "ordinal" else 1
    return Meaning(kind, group, str(random.choice(list(AXES))), rank)


def _group(thing: Thing, random: np.random.Generator, at_least: int) -> Group:
    """A group that a thing belongs to, by at least so many of its properties."""
    while True:
        named = random.random(3) < (0.45, 0.6, 0.75)
        if named.sum() >= at_least:
            size, colour, shape = (
                value if kept else None
                for value, kept in zip((thing.size, thing.colour, thing.shape), named, strict=True)
            )
            return Group(size, colour, shape)


def _word(meaning: Meaning, random: np.random.Generator) -> str:
    group = meaning.group.words(random)
    where = meaning.where
    forms = {
        "attributes": lambda: [group],
        "extreme": lambda: [f"{_EXTREME[where]} {group}", f"{group} {_AT[where]}", f"{group} furthest {_TO[where]}"],
        "corner": lambda: [f"{where} {group}", f"{group} at the {where}"],
        "relation": lambda: [f"{group} {form} the {_reference(meaning, random)}" for form in _RELATION[where]],
        "closest": lambda: [
            f"{group} {form} the {_reference(meaning, random)}" for form in ("closest to", "nearest to")
        ],
        "ordinal": lambda: [f"{ORDINALS[meaning.rank]} {group} from the {where}"],
        "superlative": lambda: [f"{form} {group}" for form in _SUPERLATIVE[where]],
    }
    words = str(random.choice(forms[meaning.kind]()))
    return words if random.random() < 0.3 else f"the {words}"


def _reference(meaning: Meaning, random: np.random.Generator) -> str:
    assert meaning.reference is not None
    return meaning.reference.words(random)


_EXTREME = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}
_AT = {"left": "on the far left", "right": "on the far right", "top": "at the top", "bottom": "at the bottom"}
_TO = {"left": "to the left", "right": "to the right", "top": "up", "bottom": "down"}
_RELATION = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_SUPERLATIVE = {"largest": ("largest", "biggest"), "smallest": ("smallest", "littlest")}

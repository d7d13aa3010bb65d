"""Expressions about a scene: their meaning as a program that picks things, and their wording.

An expression is kept only if its meaning picks exactly one thing, by a margin that leaves no doubt, and if none of its
words would pick that thing alone.
"""

from dataclasses import dataclass

import numpy as np

from train.data.world import Scene, Thing

CLEARLY = 0.08  # least difference of two positions that are compared, as a share of the short side
NEARER = 0.67  # the closest thing is at most this share of the second's distance away
LARGER = 1.25  # the largest thing is at least so many times the second's extent
CORNER = 0.2  # by how much a thing is nearer a corner than the next, as a share of width and height

AXES = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}  # coordinate, sign that sorts from there
RELATIONS = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}
NOUNS = ("object", "shape", "thing")


@dataclass(frozen=True)
class Group:
    """Things with certain properties; None leaves a property free."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    def of(self, scene: Scene) -> list[Thing]:
        """The things of the scene that belong to it."""
        return [thing for thing in scene.things if self.holds(thing)]

    def holds(self, thing: Thing) -> bool:
        """Whether a thing belongs to it."""
        return (
            self.size in (None, thing.size)
            and self.colour in (None, thing.colour)
            and self.shape in (None, thing.shape)
        )

    def words(self, random: np.random.Generator) -> str:
        """Such as "small red circle"."""
        noun = self.shape or str(random.choice(NOUNS))
        return " ".join(word for word in (self.size, self.colour, noun) if word)


@dataclass(frozen=True)
class Meaning:
    """A program over a scene.

    kind: "attributes", "extreme", "corner", "relation", "closest", "ordinal" or "superlative". where: a side, two
    sides for a corner, a relation's name, or "largest"/"smallest". rank: of an ordinal, from 1.
    """

    kind: str
    group: Group
    where: str = ""
    rank: int = 1
    reference: Group | None = None

    def pick(self, scene: Scene) -> Thing | None:
        """The one thing meant, or None if there is none, or several, or doubt."""
        things = self.group.of(scene)
        if self.kind == "attributes":
            return things[0] if len(things) == 1 else None
        if self.reference is not None:
            return self._pick_related(scene, things)
        if len(things) < 2:
            return None  # the group alone would say it
        if self.kind == "superlative":
            return _pick_extent(things, self.where)
        if self.kind == "corner":
            return _pick_corner(scene, things, self.where)
        return _pick_rank(scene, things, self.where, self.rank)

    def _pick_related(self, scene: Scene, things: list[Thing]) -> Thing | None:
        assert self.reference is not None
        references = self.reference.of(scene)
        if len(references) != 1:
            return None
        reference = references[0]
        things = [thing for thing in things if thing != reference]
        if len(things) < 2:
            return None
        if self.kind == "closest":
            things.sort(key=lambda thing: _distance(thing, reference))
            near, next_near = (_distance(thing, reference) for thing in things[:2])
            return things[0] if near < NEARER * next_near else None
        axis, sign = AXES[RELATIONS[self.where]]
        ahead = [sign * (reference.centre[axis] - thing.centre[axis]) / scene.short_side for thing in things]
        if any(0 < distance < CLEARLY for distance in ahead) or sum(distance > 0 for distance in ahead) != 1:
            return None
        return things[int(np.argmax(ahead))]


def _pick_extent(things: list[Thing], where: str) -> Thing | None:
    ordered = sorted(things, key=lambda thing: thing.extent, reverse=where == "largest")
    ratio = ordered[0].extent / ordered[1].extent
    return ordered[0] if max(ratio, 1 / ratio) >= LARGER else None


def _pick_rank(scene: Scene, things: list[Thing], where: str, rank: int) -> Thing | None:
    """The rank-th thing from a side; its neighbours in that order must be clearly before and after it."""
    axis, sign = AXES[where]
    ordered = sorted(things, key=lambda thing: sign * thing.centre[axis])
    if rank > len(ordered):
        return None
    places = [thing.centre[axis] / scene.short_side for thing in ordered]
    gaps = np.abs(np.diff(places))[:rank]  # all that must be counted to get there, and the next
    return ordered[rank - 1] if (gaps >= CLEARLY).all() else None


def _pick_corner(scene: Scene, things: list[Thing], where: str) -> Thing | None:
    vertical, horizontal = where.split()
    corner = np.array([horizontal == "right", vertical == "bottom"], dtype=float)
    places = [np.array(thing.centre) / (scene.width, scene.height) for thing in things]
    order = sorted(range(len(things)), key=lambda i: float(np.abs(places[i] - corner).max()))
    first, second = (float(np.abs(places[i] - corner).max()) for i in order[:2])
    return things[order[0]] if first < 0.45 and second - first >= CORNER else None


def _distance(a: Thing, b: Thing) -> float:
    return float(np.hypot(a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]))


def word_decides(meaning: Meaning, scene: Scene, target: Thing) -> bool:
    """Whether one word of the expression, applied to everything, already picks the target."""
    group = meaning.group
    singles = [Group(size=group.size), Group(colour=group.colour), Group(shape=group.shape)]
    if any(single != Group() and single.of(scene) == [target] for single in singles):
        return True
    if meaning.kind == "superlative":
        pick = max if meaning.where == "largest" else min
        return pick(scene.things, key=lambda thing: thing.extent) == target
    if meaning.kind == "closest":
        return False  # to what, the word does not say
    sides = [RELATIONS[meaning.where]] if meaning.kind == "relation" else meaning.where.split()
    if meaning.kind == "ordinal":
        axis, sign = AXES[sides[0]]
        return sorted(scene.things, key=lambda thing: sign * thing.centre[axis])[meaning.rank - 1] == target
    for axis, sign in (AXES[side] for side in sides):
        if min(scene.things, key=lambda thing: sign * thing.centre[axis]) == target:
            return True
    return False

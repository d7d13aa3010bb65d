"""Flickr30k Entities, as BryanPlummer/flickr30k_entities publishes it.

`Annotations/*.xml` say where entities are, `Sentences/*.txt` what is said of them, `train.txt`, `val.txt` and
`test.txt` list the pictures.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

from train.data.annotations import Box, InvalidData
from train.data.prepare.tables import Annotation, Splits

SPLITS = ("train", "val", "test")
NOT_VISUAL = "0"
_ENTITY = re.compile(r"\[/EN#(\d+)/(\S+)\s+([^\]]*)\]")  # its number, its types with slashes between, the phrase


def prepare(source: Path) -> Splits:
    """Read `source`/flickr30k_entities, or `source` itself where it is that folder.

    Entities that are not visual are left out; those without a box are dropped; several boxes of one entity are merged
    into the one around them. All phrases about an entity of a picture are its expressions. Raises InvalidData or
    OSError.
    """
    folder = source / "flickr30k_entities" if (source / "flickr30k_entities").is_dir() else source
    splits = Splits()
    for split in SPLITS:
        for image in (folder / f"{split}.txt").read_text(encoding="utf-8").split():
            boxes = read_boxes(folder / "Annotations" / f"{image}.xml")
            for number, (category, phrases) in read_phrases(folder / "Sentences" / f"{image}.txt").items():
                found = boxes.get(number, [])
                if found:
                    splits.add(split, Annotation(image, _union(found), tuple(phrases), category))
                else:
                    splits.drop(split, "no box")
    return splits


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """Entity number to its boxes. Raises InvalidData or OSError."""
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise InvalidData(f"{path} declares entities, which annotations never do; it is not read")
    boxes: dict[str, list[Box]] = {}
    try:
        for thing in ElementTree.fromstring(text).iter("object"):
            corners = thing.find("bndbox")
            if corners is not None:
                x1, y1, x2, y2 = (float(corners.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax"))
                for name in thing.iter("name"):
                    boxes.setdefault((name.text or "").strip(), []).append((x1, y1, x2, y2))
    except (ElementTree.ParseError, ValueError) as error:
        raise InvalidData(f"{path} is not an annotation as published: {error}") from None
    return boxes


def read_phrases(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Number of each visual entity to its first type and the phrases about it, in the order of their mention."""
    phrases: dict[str, tuple[str, list[str]]] = {}
    for number, types, phrase in _ENTITY.findall(path.read_text(encoding="utf-8")):
        if number != NOT_VISUAL:
            phrases.setdefault(number, (types.split("/")[0], []))[1].append(phrase)
    return phrases


def _union(boxes: list[Box]) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)

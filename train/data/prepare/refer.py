"""ReferIt and the RefCOCO family, as lichengunc/refer publishes them: `instances.json` and `refs(AUTHOR).p`."""

import json
import re
from pathlib import Path
from typing import Any

from train.data.annotations import Box, InvalidData
from train.data.plain_pickle import load_plain_pickle
from train.data.prepare.tables import Annotation, Splits

# who split a dataset, the usual one first
SPLIT_BY = {
    "refclef": ("berkeley", "unc"),
    "refcoco": ("unc", "google"),
    "refcoco+": ("unc",),
    "refcocog": ("umd", "google"),
}


def prepare(name: str, source: Path, split_by: str | None) -> Splits:
    """Read `source`/NAME, or `source` itself where it is that folder.

    Every reference to a thing is one annotation; its expressions are stripped and in lower case. Pictures are named by
    their file, or by their number for ReferIt. Raises InvalidData or OSError.
    """
    known = SPLIT_BY[name]
    if split_by is not None and split_by not in known:
        raise InvalidData(f"--split-by is {split_by!r}; {name} was split by {' and by '.join(known)}")
    folder = source / name if (source / name).is_dir() else source
    references = _list(load_plain_pickle(folder / f"refs({split_by or known[0]}).p"), folder)
    boxes, files, categories = _instances(folder / "instances.json")
    splits = Splits()
    for number, reference in enumerate(references):
        try:
            split, image = str(reference["split"]), reference["image_id"]
            box = boxes.get(reference["ann_id"])
            file = f"{image}.jpg" if name == "refclef" else files.get(image)
            expressions = tuple(str(sentence["raw"]).strip().lower() for sentence in reference["sentences"])
            category = categories.get(reference["category_id"])
        except (KeyError, TypeError) as error:
            raise InvalidData(f"{folder}: reference {number} is not as published: {error!r}") from None
        if not re.fullmatch("[A-Za-z]+", split):  # it becomes a file's name
            raise InvalidData(f"{folder}: reference {number} is not as published: its split is {split!r}")
        if box is None:
            splits.drop(split, "no box")
        elif file is None:
            splits.drop(split, "no picture")
        else:
            x, y, width, height = box
            splits.add(split, Annotation(file, (x, y, x + width, y + height), expressions, category))
    return splits


def _list(references: Any, folder: Path) -> list[Any]:
    if not isinstance(references, list):
        raise InvalidData(f"the references in {folder} are a {type(references).__name__}, not a list")
    return references


def _instances(path: Path) -> tuple[dict[Any, Box | None], dict[Any, str], dict[Any, str]]:
    """Boxes (x, y, width, height), names of pictures and names of categories by their numbers."""
    try:
        instances = json.loads(path.read_text(encoding="utf-8"))
        boxes = {instance["id"]: _box(instance.get("bbox")) for instance in instances["annotations"]}
        files = {image["id"]: str(image["file_name"]) for image in instances["images"]}
        categories = {category["id"]: str(category["name"]) for category in instances["categories"]}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidData(f"{path} is not JSON as published: {error!r}") from None
    return boxes, files, categories


def _box(sides: Any) -> Box | None:
    if not isinstance(sides, list) or len(sides) != 4:
        return None
    x, y, width, height = (float(side) for side in sides)
    return x, y, width, height

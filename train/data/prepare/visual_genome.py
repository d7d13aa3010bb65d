"""The ZSGNet paper's splits of Visual Genome, as its authors publish them: CSVs in `vg_split/csv_dir`.

Both splits are trained on `training_balanced.csv` and validated on `val_balanced.csv`; their tests are named after
them, as `test_balanced_c2.csv` (github.com/TheShadow29/zsgnet-pytorch/issues/13).
"""

from pathlib import Path

from train.data.annotations import Box, InvalidData, parse_box, read_table
from train.data.prepare.tables import Annotation, Splits

COLUMNS = ("image_fpath", "bbox", "phrase")


def prepare(name: str, source: Path) -> Splits:
    """Read `source`/vg_split/csv_dir, `source`/csv_dir or `source` itself, whichever is there.

    Rows of one box of one picture become one annotation. A test keeps its file's name. Raises InvalidData or OSError.
    """
    places = (source / "vg_split" / "csv_dir", source / "csv_dir", source)
    folder = next(place for place in places if place.is_dir() or place == source)
    tests = f"test_*_{name.removeprefix('vg_split_')}.csv"
    files = {"train": folder / "training_balanced.csv", "val": folder / "val_balanced.csv"}
    files |= {path.stem: path for path in sorted(folder.glob(tests))}
    splits = Splits()
    for split, path in files.items():
        _read(splits, split, path)
    if len(files) == 2:
        raise InvalidData(f"there is no {tests} in {folder}")
    return splits


def _read(splits: Splits, split: str, path: Path) -> None:
    phrases: dict[tuple[str, Box], list[str]] = {}
    for _, fields in read_table(path, COLUMNS):
        image, phrase = fields["image_fpath"], fields["phrase"]
        try:
            box = parse_box(fields["bbox"])
        except ValueError:
            splits.drop(split, "bbox not as published")
            continue
        if image:
            phrases.setdefault((image, box), []).append(phrase or "")
        else:
            splits.drop(split, "no picture")
    for (image, box), expressions in phrases.items():
        splits.add(split, Annotation(image, box, tuple(expressions)))

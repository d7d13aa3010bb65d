"""The ZSGNet paper's splits of Visual Genome, whose CSVs its authors publish ready-made.

`train.csv`, `val.csv`, and the test sets: every `test*.csv`, such as a balanced and an unbalanced one.
"""

from pathlib import Path

from train.data.annotations import InvalidData, read_annotations
from train.data.prepare.tables import Annotation, Splits


def prepare(name: str, source: Path) -> Splits:
    """Read `source`/NAME/csv_dir, `source`/NAME, `source`/csv_dir or `source` itself, whichever holds `train.csv`.

    Rows of one box of one picture become one annotation. Raises InvalidData or OSError.
    """
    places = (source / name / "csv_dir", source / name, source / "csv_dir", source)
    folder = next((place for place in places if (place / "train.csv").is_file()), source)
    splits = Splits()
    tests = sorted(path.stem for path in folder.glob("test*.csv"))
    if not tests and (folder / "train.csv").is_file():
        raise InvalidData(f"there is no test*.csv in {folder}")
    for split in ("train", "val", *tests):
        rows, problems = read_annotations(folder / f"{split}.csv", images=None)
        for problem in problems:
            splits.drop(split, problem.reason.partition(" ")[0] + " not as published")
        boxes: dict[tuple, list[str]] = {}
        for row in rows:
            boxes.setdefault((str(row.image), row.box), []).extend(row.expressions)
        for (image, box), expressions in boxes.items():
            splits.add(split, Annotation(image, box, tuple(expressions)))
    return splits

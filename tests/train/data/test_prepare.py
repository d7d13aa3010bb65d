"""Every dataset from a miniature of its publisher's files, written here in their layout."""

import csv
import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from train.data.annotations import InvalidData, read_rows
from train.data.check import check_annotations
from train.data.plain_pickle import load_plain_pickle
from train.data.prepare.__main__ import NAMES, main
from train.data.prepare.lemmas import lemma


def run(name: str, source: Path, out: Path, *more: str) -> dict[str, list[dict[str, str]]]:
    """Prepare a dataset; the rows of every CSV by its name."""
    assert main([name, "--source", str(source), "--out", str(out), *more]) == 0
    tables = {}
    for path in out.glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            tables[path.stem] = list(csv.DictReader(file))
    return tables


def plain(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    """Rows as tuples."""
    return [(row["img_id"], row["bbox"], row["query"]) for row in rows]


# ReferIt and RefCOCO


def reference(split: str, image: int, thing: int, category: int, *raw: str) -> dict:
    """An entry of `refs(...).p`."""
    sentences = [{"raw": text, "sent": text.lower(), "tokens": text.lower().split(), "sent_id": 1} for text in raw]
    return {
        "ref_id": thing, "split": split, "image_id": image, "ann_id": thing, "category_id": category,
        "file_name": f"COCO_train2014_{image:012d}_{thing}.jpg", "sentences": sentences, "sent_ids": [1],
    }  # fmt: skip


def write_refer(folder: Path, split_by: str, splits: list[str]) -> Path:
    """`refs(...).p` as Python 2 would write it, and `instances.json`."""
    folder.mkdir(parents=True)
    references = [
        reference("train", 9, 1, 1, " The Dog_House ", "brown DOG"),
        reference("train", 9, 2, 2, "cat"),
        reference("train", 9, 3, 2, "no box at all"),
        reference("train", 25, 4, 2, "  ", "?"),
        reference("train", 25, 5, 2, "flat thing"),
        *(reference(split, 25, 6, 1, f"the {split} dog", "[left] dog") for split in splits),
    ]
    boxes = {1: [10, 20, 30.5, 40], 2: [0, 0, 5, 5], 4: [1, 1, 2, 2], 5: [1, 1, 0, 9], 6: [3, 4, 10, 10]}
    instances = {
        "images": [{"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg"} for n in (9, 25)],
        "annotations": [{"id": thing, "bbox": box, "image_id": 9} for thing, box in boxes.items()],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(references, protocol=2))
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder.parent


@pytest.mark.parametrize(
    ("name", "split_by", "option", "splits"),
    [
        ("refclef", "berkeley", [], ["val", "test"]),
        ("refcoco", "unc", [], ["val", "testA", "testB"]),
        ("refcoco+", "unc", [], ["val", "testA", "testB"]),
        ("refcocog", "umd", [], ["val", "test"]),
        ("refcocog", "google", ["--split-by", "google"], ["val"]),
    ],
)
def test_refer(
    tmp_path: Path, name: str, split_by: str, option: list[str], splits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Lower case, stripped, no underscores, nothing without words, corners from sizes; flat but for train."""
    source = write_refer(tmp_path / "data" / name, split_by, splits)
    tables = run(name, source, tmp_path / "out", *option)
    nine, twenty_five = (f"{n}.jpg" if name == "refclef" else f"COCO_train2014_{n:012d}.jpg" for n in (9, 25))
    assert plain(tables["train"]) == [
        (nine, "[10.0, 20.0, 40.5, 60.0]", "['the dog house', 'brown dog']"),
        (nine, "[0.0, 0.0, 5.0, 5.0]", "['cat']"),
    ]
    assert [row["query"] for row in tables["train_flat"]] == ["the dog house", "brown dog", "cat"]
    assert [row["category"] for row in tables["train_flat_categories"]] == ["dog", "dog", "cat"]
    for split in splits:
        box = "[3.0, 4.0, 13.0, 14.0]"
        assert plain(tables[split]) == [
            (twenty_five, box, f"the {split.lower()} dog"),
            (twenty_five, box, "['[left] dog']"),
        ]
    assert len([stem for stem in tables if "categories" not in stem]) == 2 + len(splits)
    shown = capsys.readouterr().out
    for reason in ("no box", "no expression", "empty or inside out"):
        assert reason in " ".join(shown.replace("│", " ").split())

    images = tmp_path / "images"
    images.mkdir()
    for file in (nine, twenty_five):
        Image.new("RGB", (100, 100)).save(images / file)
    for table in ("train", "train_flat", *splits):
        assert not check_annotations(tmp_path / "out" / f"{table}.csv", images, 50)[1]
    assert read_rows(tmp_path / "out" / f"{splits[0]}.csv", images)[1].expressions == ("[left] dog",)


# Flickr30k Entities

SENTENCES = {
    "100": "[/EN#1/people A Man_with] stands by [/EN#2/vehicles/other a red car] .\n"
    "[/EN#1/people The man] and [/EN#0/notvisual that] [/EN#3/scene the street] .\n",
    "200": "[/EN#7/animals Two dogs] near [/EN#8/other a ball] .\n",
    "300": "[/EN#9/people A boy] .\n",
}
OBJECTS = {
    "100": [(["1"], (10, 10, 50, 90)), (["2", "1"], (60, 40, 99, 80)), (["3"], None)],
    "200": [(["7"], (5, 5, 20, 20)), (["7"], (30, 2, 40, 18)), (["8"], (1, 1, 9, 9))],
    "300": [(["9"], (0, 0, 9, 9))],
}


def corners(box: tuple[int, ...]) -> str:
    """A box in their XML."""
    x1, y1, x2, y2 = box
    return f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"


def write_flickr(folder: Path, boys: int = 1) -> Path:
    """Annotations, sentences and lists of pictures. boys: pictures from 300 on with a boy each."""
    for name in ("Annotations", "Sentences"):
        (folder / "flickr30k_entities" / name).mkdir(parents=True)
    for image in ["100", "200", *(str(300 + n) for n in range(boys))]:
        objects, sentences = OBJECTS.get(image, OBJECTS["300"]), SENTENCES.get(image, SENTENCES["300"])
        parts = [f"<annotation><filename>{image}.jpg</filename><size><width>100</width></size>"]
        for names, box in objects:
            parts.append("<object>" + "".join(f"<name>{name}</name>" for name in names))
            inner = corners(box) if box else ""
            parts.append(
                f"<bndbox>{inner}</bndbox></object>" if box else "<scene>1</scene><nobndbox>1</nobndbox></object>"
            )
        text = "".join(parts) + "</annotation>"
        (folder / "flickr30k_entities" / "Annotations" / f"{image}.xml").write_text(text)
        (folder / "flickr30k_entities" / "Sentences" / f"{image}.txt").write_text(sentences)
    for split, first in {"train": 100, "val": 200, "test": 300}.items():
        images = [first + n for n in range(boys if split == "test" else 1)]
        (folder / "flickr30k_entities" / f"{split}.txt").write_text("".join(f"{image}\n" for image in images))
    return folder


def test_flickr30k(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Boxes of one entity are merged, entity 0 is left out, one without a box is dropped and counted."""
    tables = run("flickr30k", write_flickr(tmp_path / "flickr"), tmp_path / "out")
    assert plain(tables["train"]) == [
        ("100", "[10.0, 10.0, 99.0, 90.0]", "['A Man with', 'The man']"),
        ("100", "[60.0, 40.0, 99.0, 80.0]", "['a red car']"),
    ]
    assert plain(tables["val"]) == [
        ("200", "[5.0, 2.0, 40.0, 20.0]", "Two dogs"),
        ("200", "[1.0, 1.0, 9.0, 9.0]", "a ball"),
    ]
    assert [row["category"] for row in tables["train_categories"]] == ["people", "vehicles"]
    assert len(tables["test"]) == 1
    assert "1 no box" in capsys.readouterr().out


def test_unseen_categories(tmp_path: Path) -> None:
    """What is tested is of the category "other"; nothing of its pictures or category is trained on."""
    tables = run("flickr30k_c1", write_flickr(tmp_path / "flickr", boys=9), tmp_path / "out")
    assert plain(tables["test"]) == [("200", "[1.0, 1.0, 9.0, 9.0]", "a ball")]
    seen = [row["query"] for row in tables["train_flat"] + tables["val"]]
    assert sorted(seen) == ["A Man with", *["A boy"] * 9, "The man", "a red car"]
    assert len({row["img_id"] for row in tables["val"]}) == 2


def test_unseen_words(tmp_path: Path) -> None:
    """The lemma that a tested expression ends with occurs in no expression of training, and no picture is in both."""
    folder = tmp_path / "flickr" / "flickr30k_entities"
    for name in ("Annotations", "Sentences"):
        (folder / name).mkdir(parents=True)
    images = [str(n) for n in range(900)]
    for image in images:
        box = corners((1, 1, 9, 9))
        xml = f"<annotation><object><name>1</name><bndbox>{box}</bndbox></object></annotation>"
        (folder / "Annotations" / f"{image}.xml").write_text(xml)
        thing = f"thing{'abcdefghij'[int(image) % 10]}{image}"
        (folder / "Sentences" / f"{image}.txt").write_text(f"[/EN#1/other a small {thing}] and [/EN#1/other it] .\n")
    for split, part in (("train", images[:600]), ("val", images[600:700]), ("test", images[700:])):
        (folder / f"{split}.txt").write_text("\n".join(part))
    tables = run("flickr30k_c0", tmp_path / "flickr", tmp_path / "out")
    trained = {lemma(word) for row in tables["train_flat"] for word in row["query"].lower().split()}
    assert len(tables["test"]) > 50
    assert all(lemma(row["query"].lower().split()[-1]) not in trained for row in tables["test"])
    pictures = [{row["img_id"] for row in tables[split]} for split in ("train", "val", "test")]
    assert sum(map(len, pictures)) == len(set.union(*pictures))
    assert run("flickr30k_c0", tmp_path / "flickr", tmp_path / "again") == tables


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"), ("women", "woman"), ("boxes", "box"), ("benches", "bench"), ("ladies", "lady"),
        ("glasses", "glasses"), ("buses", "bus"), ("horses", "horse"), ("dress", "dress"), ("dresses", "dress"),
        ("potatoes", "potato"), ("shoes", "shoe"), ("red", "red"), ("knives", "knife"), ("tennis", "tennis"),
    ],
)  # fmt: skip
def test_lemmas(plural: str, singular: str) -> None:
    """Regular and irregular plurals, and words that only look like them."""
    assert lemma(plural) == singular


# Visual Genome


def write_visual_genome(folder: Path) -> Path:
    """The authors' CSVs, each with a phrase of its own and rows that are broken."""
    (folder / "vg_split" / "csv_dir").mkdir(parents=True)
    tests = [f"test_{kind}_{case}" for kind in ("balanced", "unbalanced") for case in ("c2", "c3")]
    for name in ("training_balanced", "val_balanced", "training_unbalanced", *tests):
        rows = [
            "image_fpath,bbox,phrase",
            f'VG_100K/2.jpg,"[1, 2, 30, 40]",{name.replace("_", " ")}',
            'VG_100K/2.jpg,"[1, 2, 30, 40]",a red_sign',
            'VG_100K/3.jpg,"[9, 2, 3, 4]",inside out',
            "VG_100K/3.jpg,none,no box",
            ',"[1, 2, 3, 4]",no picture',
            'VG_100K/3.jpg,"[1, 2, 3, 4]",',
        ]
        (folder / "vg_split" / "csv_dir" / f"{name}.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("case", ["c2", "c3"])
@pytest.mark.parametrize("place", ["", "vg_split", "vg_split/csv_dir"])
def test_visual_genome(tmp_path: Path, case: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is trained on is common to both, the tests are those of the name; broken rows are dropped and counted."""
    tables = run(f"vg_split_{case}", write_visual_genome(tmp_path / "ann") / place, tmp_path / "out")
    box = "[1.0, 2.0, 30.0, 40.0]"
    assert plain(tables["train"]) == [("VG_100K/2.jpg", box, "['training balanced', 'a red sign']")]
    assert set(tables) == {"train", "train_flat", "val", f"test_balanced_{case}", f"test_unbalanced_{case}"}
    for split in ("val", f"test_balanced_{case}", f"test_unbalanced_{case}"):
        own = "val balanced" if split == "val" else split.replace("_", " ")
        assert [row["query"] for row in tables[split]] == [own, "a red sign"]
    shown = capsys.readouterr().out
    for reason in ("1 box empty", "1 bbox not as published", "1 no picture", "1 no expression"):
        assert reason in shown


def test_no_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a test of the name nothing is written, and it is said which files are looked for."""
    source = write_visual_genome(tmp_path / "ann")
    for path in (source / "vg_split" / "csv_dir").glob("*_c3.csv"):
        path.unlink()
    assert main(["vg_split_c3", "--source", str(source), "--out", str(tmp_path / "out")]) == 2
    assert "no test_*_c3.csv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# What is not as published


@pytest.mark.parametrize("name", NAMES)
def test_nothing_there(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A source without the publisher's files: one line that names a file, exit code 2, nothing written."""
    assert main([name, "--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert str(tmp_path) in message
    assert not (tmp_path / "out").exists()


def test_wrong_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--split-by where nobody did is refused with who did."""
    for name, cause in (("refcoco+", "unc"), ("flickr30k", "refcocog")):
        assert main([name, "--source", str(tmp_path), "--out", str(tmp_path / "o"), "--split-by", "google"]) == 2
        assert cause in capsys.readouterr().err


def test_hostile_xml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An annotation that declares entities is not parsed; a cut one is named."""
    source = write_flickr(tmp_path / "flickr")
    path = source / "flickr30k_entities" / "Annotations" / "200.xml"
    for text in ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "<annotation><object>"):
        path.write_text(text)
        assert main(["flickr30k", "--source", str(source), "--out", str(tmp_path / "out")]) == 2
        assert "200.xml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Evil:
    """Pickled, it asks for a function of another module to be called."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_pickle(tmp_path: Path, protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    """References that would run something are refused by name, and nothing is run."""
    source = write_refer(tmp_path / "data" / "refcoco", "unc", ["val"])
    marker = tmp_path / "marker"
    path = source / "refcoco" / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"split": Evil(marker)}], protocol=protocol))
    assert main(["refcoco", "--source", str(source), "--out", str(tmp_path / "out")]) == 2
    assert "refused" in capsys.readouterr().err
    assert not marker.exists()
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InvalidData):
        load_plain_pickle(path)


@pytest.mark.parametrize(
    ("file", "name", "content"),
    [
        *(("refs(unc).p", None, content) for content in ({}, [1], [{}], [{"split": "train"}])),
        ("refs(unc).p", None, [reference("../../escaped", 9, 1, 1, "the dog")]),
        ("refs(unc).p", None, [reference("train", 9, 1, 1, "the dog") | {"image_id": [9]}]),
        *(("instances.json", "annotations", content) for content in ([{"bbox": [0, 0, 5, 5]}], [1], {"1": {}})),
        *(("instances.json", "annotations", [{"id": 1, "bbox": [0, 0, 5, side]}]) for side in (None, 10**400)),
        ("instances.json", "images", {"9": {"file_name": "a.jpg"}}),
        ("instances.json", "categories", None),
    ],
)
def test_other_content(
    tmp_path: Path, file: str, name: str | None, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain data that is not as published is refused in one line, and nothing is written."""
    source = write_refer(tmp_path / "data" / "refcoco", "unc", ["val"])
    path = source / "refcoco" / file
    if name is None:
        path.write_bytes(pickle.dumps(content))
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: content}))
    assert main(["refcoco", "--source", str(source), "--out", str(tmp_path / "out" / "csv")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "as published" in error or "not a list" in error
    assert not (tmp_path / "out").exists()


def test_authors_csvs_load_as_they_are(tmp_path: Path) -> None:
    """Flickr30k's without suffix, ReferIt's with it, lists and sentences."""
    Image.new("RGB", (50, 50)).save(tmp_path / "1000092795.jpg")
    (tmp_path / "train.csv").write_text(
        'img_id,bbox,query\n1000092795,"[1, 2, 30, 40]","[\'Two men\', ""a man\'s hat""]"\n'
        '1000092795.jpg,"[1, 2, 30, 40]",two men\n'
    )
    rows = read_rows(tmp_path / "train.csv", tmp_path)
    assert [row.expressions for row in rows] == [("Two men", "a man's hat"), ("two men",)]

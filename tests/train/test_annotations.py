"""CSV annotations: read as the originals write them, refused with file and line otherwise."""

from pathlib import Path

import pytest
from PIL import Image

from train.data.annotations import InvalidData, read_annotations, read_rows
from train.data.check import check_annotations, main


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one picture, 120 wide and 90 high."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (120, 90)).save(folder / "7.jpg")
    return folder


def write(tmp_path: Path, *lines: str, header: str = "img_id,bbox,query") -> Path:
    """A CSV file."""
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_rows(tmp_path: Path, images: Path) -> None:
    """Names with and without suffix, one expression or a list of them."""
    path = write(tmp_path, '7.jpg,"[1, 2, 30.5, 40]",the dog', "7,\"[0, 0, 120, 90]\",\"['a cat', 'it, too']\"")
    rows = read_rows(path, images)
    assert check_annotations(path, images, 50) == (rows, [])
    assert [row.number for row in rows] == [0, 1]
    assert rows[0].box == (1, 2, 30.5, 40)
    assert rows[0].image == rows[1].image == images / "7.jpg"
    assert [row.expressions for row in rows] == [("the dog",), ("a cat", "it, too")]


def test_a_spreadsheets_file(tmp_path: Path, images: Path) -> None:
    """It begins with a byte order mark, ends its lines as Windows does and fills them up with empty fields."""
    path = tmp_path / "rows.csv"
    path.write_text('img_id,bbox,query\r\n7.jpg,"[1, 2, 3, 4]","a dog, a cat",\r\n', encoding="utf-8-sig", newline="")
    assert [row.expressions for row in read_rows(path, images)] == [("a dog, a cat",)]


@pytest.mark.parametrize("query", ["[pool", "[left] dog", "[dog]", "[{[]: 1}]"])
def test_a_sentence_in_brackets(tmp_path: Path, images: Path, query: str) -> None:
    """What begins like a list and is none is a sentence; ReferIt's test has such a row."""
    assert read_rows(write(tmp_path, f'7.jpg,"[1, 2, 3, 4]",{query}'), images)[0].expressions == (query,)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('8.jpg,"[1, 2, 3, 4]",dog', "line 2.*no picture '8.jpg'"),
        ('7.jpg,"[5, 2, 3, 4]",dog', "line 2.*inside out"),
        ('7.jpg,"[1, 2, 1, 4]",dog', "line 2.*inside out or empty"),
        ('7.jpg,"[1, 2, 3]",dog', "line 2.*not a list"),
        ("8" * 300 + ',"[1, 2, 3, 4]",dog', "line 2.*no picture '88"),
        ("7.jpg,here,dog", "line 2.*not a Python list"),
        (f"7.jpg,{'here' * 1000},dog", "line 2: bbox '[here]{,50}.{3}[here]{,50}' is not a Python list"),
        ('7.jpg,"__import__(""os"")",dog', "line 2.*not a Python list"),
        ('7.jpg,"[1, 2, 3, nan]",dog', "line 2"),
        (f'7.jpg,"[1, 2, 3, {10**400}]",dog', "line 2.*not finite"),
        ('7.jpg,"[1, 2, 3, 4]",[]', "line 2.*sentence"),
        ('7.jpg,"[1, 2, 3, 4]","[\'dog\', 1]"', "line 2.*sentence"),
        ("7.jpg,[1, 2, 3, 4],dog", "line 2.*a box, or .* needs quotes"),
        ('7.jpg,"[1, 2, 3, 4]",the dog, the left one', "line 2.*more fields than the header.*quotes"),
    ],
)
def test_bad_rows(tmp_path: Path, images: Path, line: str, cause: str) -> None:
    """A bad row is named with its cause."""
    with pytest.raises(InvalidData, match=cause):
        read_rows(write(tmp_path, line), images)


def test_the_line_of_a_row(tmp_path: Path, images: Path) -> None:
    """It is the file's, as an editor counts, whatever blank lines and line breaks stand before it."""
    path = write(tmp_path, '7.jpg,"[1, 2, 3, 4]","a dog\nand a cat"', "", '8.jpg,"[1, 2, 3, 4]",dog')
    rows, problems = read_annotations(path, images)
    assert [(row.number, row.line) for row in rows] == [(0, 3)]
    assert str(problems[0]).startswith(f"{path}, line 5: ")


def test_bad_files(tmp_path: Path, images: Path) -> None:
    """A missing column, no rows, a row that is too short, and no file."""
    with pytest.raises(InvalidData, match="no column bbox"):
        read_rows(write(tmp_path, "7.jpg,dog", header="img_id,query"), images)
    with pytest.raises(InvalidData, match="no rows"):
        read_rows(write(tmp_path), images)
    with pytest.raises(InvalidData, match="line 2: img_id is empty"):
        read_rows(write(tmp_path, '"[1, 2, 3, 4]",dog', header="bbox,query,img_id"), images)
    with pytest.raises(FileNotFoundError):
        read_rows(tmp_path / "nowhere.csv", images)
    with pytest.raises(InvalidData, match="no folder '.*nowhere' of pictures"):
        read_rows(write(tmp_path, '7.jpg,"[1, 2, 3, 4]",dog'), tmp_path / "nowhere")


def test_every_unusable_row_is_found(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its cause, in the file's order; the others can be used. The command prints the same."""
    Image.effect_noise((300, 200), 50).save(images / "8.jpg")
    (images / "8.jpg").write_bytes((images / "8.jpg").read_bytes()[:3000])
    (images / "9.jpg").write_text("hello")
    Image.new("1", (10_000, 6_000)).save(images / "large.png")
    lines = {
        '7.jpg,"[1, 2, 30, 40]",the dog': None,
        '7.jpg,"[1, 2, 30, 100]",dog': "lies outside",
        '8.jpg,"[1, 2, 30, 40]",dog': "damaged",
        '9.jpg,"[1, 2, 30, 40]",dog': "none of JPEG",
        'nowhere.jpg,"[1, 2, 30, 40]",dog': "no picture 'nowhere.jpg'",
        'large.png,"[1, 2, 30, 40]",dog': "10000 x 6000",
        '7.jpg,"[1, 2, 30, 40]", ': "no words",
        f'7.jpg,"[1, 2, 30, 40]",{"dog " * 51}': "51 words",
        f'7.jpg,"[1, 2, 30, 40]",{"a" * 1001}': "1,001 characters",
        '7.jpg,"[30, 2, 1, 40]",dog': "inside out",
        "7.jpg,\"[1, 2, 30, 40]\",\"['dog', '?']\"": "no words",
        '7,"[0, 0, 120.5, 90]",dog': None,
        '7.jpg,"[0.1, 0.2, 0.5, 0.6]",dog': "smaller than a pixel",
        '7.jpg,"[3, 2, 4, 3]",dog': None,
    }
    path = write(tmp_path, *lines)
    rows, problems = check_annotations(path, images, 50)
    causes = list(lines.values())
    assert [row.number for row in rows] == [number for number, cause in enumerate(causes) if cause is None]
    unusable = [number for number, cause in enumerate(causes) if cause is not None]
    assert [problem.line - 2 for problem in problems] == unusable
    for problem in problems:
        assert causes[problem.line - 2] in str(problem)  # type: ignore[operator]
    assert main([str(path), "--images", str(images)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[:-1] == [str(problem) for problem in problems]
    assert out[-1] == "3 rows about 1 pictures can be used, 11 rows cannot"


def test_check_command(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing wrong: exit code 0. No such file, or not a CSV: 2 and one line."""
    good = write(tmp_path, '7.jpg,"[1, 2, 30, 40]",the dog')
    assert main([str(good), "--images", str(images)]) == 0
    assert main([str(tmp_path / "nowhere.csv"), "--images", str(images)]) == 2
    capsys.readouterr()
    (tmp_path / "picture.csv").write_bytes((images / "7.jpg").read_bytes())
    assert main([str(tmp_path / "picture.csv"), "--images", str(images)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_rotated_picture(tmp_path: Path, images: Path) -> None:
    """A box is judged on the picture as a person sees it: this one is stored on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (120, 90)).save(images / "9.jpg", exif=exif)
    assert not check_annotations(write(tmp_path, '9.jpg,"[0, 0, 90, 120]",dog'), images, 50)[1]

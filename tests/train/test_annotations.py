"""CSV annotations: read as the originals write them, refused with file and row otherwise."""

from pathlib import Path

import pytest
from PIL import Image

from train.data.annotations import InvalidData, check_pictures, read_rows


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
    check_pictures(rows)
    assert [row.number for row in rows] == [0, 1]
    assert rows[0].box == (1, 2, 30.5, 40)
    assert rows[0].image == rows[1].image == images / "7.jpg"
    assert [row.expressions for row in rows] == [("the dog",), ("a cat", "it, too")]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('8.jpg,"[1, 2, 3, 4]",dog', "row 0.*no picture '8.jpg'"),
        ('7.jpg,"[5, 2, 3, 4]",dog', "row 0.*inside out"),
        ('7.jpg,"[1, 2, 1, 4]",dog', "row 0.*inside out or empty"),
        ('7.jpg,"[1, 2, 3]",dog', "row 0.*not a list"),
        ("7.jpg,here,dog", "row 0.*not a Python list"),
        ('7.jpg,"__import__(""os"")",dog', "row 0.*not a Python list"),
        ('7.jpg,"[1, 2, 3, nan]",dog', "row 0"),
        ('7.jpg,"[1, 2, 3, 4]",[]', "row 0.*sentence"),
    ],
)
def test_bad_rows(tmp_path: Path, images: Path, line: str, cause: str) -> None:
    """A bad row is named with its cause."""
    with pytest.raises(InvalidData, match=cause):
        read_rows(write(tmp_path, line), images)


def test_bad_files(tmp_path: Path, images: Path) -> None:
    """A missing column, no rows, and no file."""
    with pytest.raises(InvalidData, match="no column bbox"):
        read_rows(write(tmp_path, "7.jpg,dog", header="img_id,query"), images)
    with pytest.raises(InvalidData, match="no rows"):
        read_rows(write(tmp_path), images)
    with pytest.raises(FileNotFoundError):
        read_rows(tmp_path / "nowhere.csv", images)


def test_pictures_are_checked(tmp_path: Path, images: Path) -> None:
    """A box outside its picture and a file that is none are found from the header."""
    with pytest.raises(InvalidData, match="row 0.*outside"):
        check_pictures(read_rows(write(tmp_path, '7.jpg,"[1, 2, 30, 100]",dog'), images))
    (images / "8.jpg").write_text("hello")
    with pytest.raises(InvalidData, match="row 0.*not a picture"):
        check_pictures(read_rows(write(tmp_path, '8.jpg,"[1, 2, 30, 40]",dog'), images))


def test_rotated_picture(tmp_path: Path, images: Path) -> None:
    """A box is judged on the picture as a person sees it: this one is stored on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (120, 90)).save(images / "9.jpg", exif=exif)
    check_pictures(read_rows(write(tmp_path, '9.jpg,"[0, 0, 90, 120]",dog'), images))

"""CSV files of points and tags with faults; what tools write is in test_fixtures.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from weakseg.annotation import Point
from weakseg.errors import InputError
from weakseg.formats.importing import import_dataset

POINTS = "Name,Row,Column,Label\n"


def _save(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("points", POINTS + 'a.jpg,1,2,x\na.jpg,1,3,"x\na.jpg,1,4,x\n', "3: quote never closed"),
        ("points", POINTS + '"a.jpg,1,2,x', "2: quote never closed"),
        ("tags", 'image,tags\n"a.jpg","x"\n\na.jpg,"y\nb.png,z\n', "4: quote never closed"),
        # The next quote closes it in the midst of a cell.
        ("points", POINTS + '"a.jpg,1,2,x\n"a.jpg",1,3,x\n', "2: row that cannot be read"),
    ],
)
def test_quotes_that_swallow_rows_are_refused(
    photos: Path, tmp_path: Path, format: str, text: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        import_dataset(format, _save(tmp_path, text), tmp_path / "out", images=photos)
    assert f"t.csv:{message}" in str(caught.value)
    assert not (tmp_path / "out" / "dataset.yaml").exists()


def test_a_quoted_cell_may_have_lines(photos: Path, tmp_path: Path) -> None:
    text = (
        'Name,Row,Column,Label,Note\na.jpg,1,2,x,"two\nlines, ""quoted"""\na.jpg,?,2,x,"5"" of\n"\n'
    )
    dataset, report = import_dataset("points", _save(tmp_path, text), None, images=photos)
    assert len(dataset[0].annotation.points) == 1
    assert [problem.line for problem in report.problems] == [4]


@pytest.mark.parametrize(
    ("format", "text", "messages"),
    [
        (
            "points",
            "Name,Row,Col,Coral Label\na.jpg,1,2,x\n",
            [
                "1: no column of labels: found Name, Row, Col, Coral Label; "
                "expected one of label code, label, label id, class, "
            ],
        ),
        (
            "points",
            "Image,px,py,species\na.jpg,1,2,x\n",
            [
                "1: no column of rows: found Image, px, py, species; expected one of row, y, ",
                "1: no column of columns (x): found Image, px, py, species; expected one of col",
            ],
        ),
        (
            "points",
            "\nphoto,x,y,class\na.jpg,1,2,x\n",
            ["2: no column of images: found photo, x, y, class; expected one of name, image, "],
        ),
        (
            "tags",
            "photo,species\na.jpg,x\n",
            ["1: no column of images: found photo, species; expected one of name, image, "],
        ),
        ("tags", "photo,x,y\na.jpg,1,0\n", ["1: no column of images: found photo, x, y"]),
    ],
)
def test_headers_that_are_not_understood_are_refused(
    photos: Path, tmp_path: Path, format: str, text: str, messages: list[str]
) -> None:
    path, out = _save(tmp_path, text), tmp_path / "out"
    with pytest.raises(InputError) as caught:
        import_dataset(format, path, out, images=photos, classes=["x", "y"])
    lines = str(caught.value).split("\n")
    assert len(lines) == len(messages)
    assert all(line.startswith(f"{path}:{m}") for line, m in zip(lines, messages, strict=True))
    assert not (out / "dataset.yaml").exists()


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("points", "label,y,x\nx,1,2\n"),  # called after its image
        ("points", "a,1,2,x\n"),
        ("points", "File_Name;Row;Col;Class\na;1;2;x\n"),
        ("tags", "a,x\n"),
        ("tags", "File_Name,x\na,1\n"),
        ("tags", "missing.jpg,x\na.jpg,x\n"),  # no header: an image that is not there is listed
    ],
)
def test_headers_that_are_understood(photos: Path, tmp_path: Path, format: str, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    dataset, _ = import_dataset(format, tmp_path / "a.csv", None, images=photos)
    assert [entry.name for entry in dataset] == ["a"]
    assert dataset.info.classes == ("x",)


def test_in_a_folder_files_that_are_not_understood_are_listed(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    files = {"a": "label,y,x\nx,1,2\n", "b": "x,y\n1,2\n", "c": "class,y,x\nx,1,2\n", "d": ""}
    for name, text in files.items():
        (tmp_path / "in" / f"{name}.csv").write_text(text)
    dataset, report = import_dataset("points", tmp_path / "in", None, images=photos)
    assert [entry.name for entry in dataset] == ["a"]
    assert [str(p).split("/in/")[1].split(":")[:2] for p in report.problems] == [
        ["b.csv", "1"],
        ["c.csv", "1"],
        ["d.csv", " no points in the file"],
    ]


@pytest.mark.parametrize("text", ["", "image,x,y,class\n", "\n\n"])
@pytest.mark.parametrize("format", ["points", "tags"])
@pytest.mark.parametrize("classes", [None, ["x"]])
def test_a_file_without_rows_is_named(
    photos: Path, tmp_path: Path, format: str, text: str, classes: list[str] | None
) -> None:
    path = _save(tmp_path, text)
    with pytest.raises(InputError) as caught:
        import_dataset(format, path, None, images=photos, classes=classes)
    assert f"{path}: no {'points' if format == 'points' else 'images'} in" in str(caught.value)


def test_points_outside_are_named_by_file_and_line(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = {"1": "a.jpg,20,16,x\na.jpg,21,15,x\na.jpg,1,1,ignore\n", "2": "\na.jpg,-1,-1.5,x\n"}
    for name, text in rows.items():
        (tmp_path / "in" / f"{name}.csv").write_text("image,x,y,class\n" + text)
    dataset, report = import_dataset("points", tmp_path / "in", None, images=photos)
    assert dataset[0].annotation.points == (Point("x", (19, 15)),)  # up to a pixel is rounding
    assert [str(problem).split("/in/")[1] for problem in report.problems] == [
        "1.csv:3: point outside the image: found [21, 15]; expected in 20 x 16",
        "1.csv:4: a point cannot mark what to ignore: found ignore",
        "2.csv:3: point outside the image: found [-1, -1.5]; expected in 20 x 16",
    ]


@pytest.mark.parametrize(
    ("format", "text", "places"),
    [
        (
            "points",
            POINTS + "a.jpg,1,1,x\na.jpg,1,2,corl\na.jpg,1,2,z\na.jpg,2,2,corl\n",
            (":3", ":4"),
        ),
        ("tags", "image,tags\na.jpg,x;corl\nempty.png,z;corl\n", (", a.jpg", ", empty.png")),
    ],
)
def test_unknown_classes_are_named_with_a_place(
    photos: Path, tmp_path: Path, format: str, text: str, places: tuple[str, ...]
) -> None:
    path = _save(tmp_path, text)
    with pytest.raises(InputError) as caught:
        import_dataset(format, path, None, images=photos, classes=["x"])
    found = [line.split(": found")[0] for line in str(caught.value).split("\n")]
    names = ("corl", "z")
    assert found == [f"{path}{p}: unknown class {n!r}" for p, n in zip(places, names, strict=True)]

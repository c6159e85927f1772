"""Images that a source names more than once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weakseg.annotation import Point
from weakseg.formats.importing import import_dataset

HEADER = "Name,Row,Column,Label\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.jpg", "a"),
        ("A", "a.JPG"),
        ("/home/jo/a.jpg", "a.jpg"),
        ("sub/b.png", "b"),
        ("b.png", "C:\\work\\sub\\b.png"),
    ],
)
def test_rows_that_mean_one_image_are_joined(
    photos: Path, tmp_path: Path, first: str, second: str
) -> None:
    (tmp_path / "p.csv").write_text(f"{HEADER}{first},3,4,x\n{second},5,6,y\n{first},7,8,x\n")
    dataset, report = import_dataset("coralnet", tmp_path / "p.csv", None, images=photos)
    (entry,) = dataset
    assert {*entry.annotation.points} == {
        Point("x", (4, 3)),
        Point("y", (6, 5)),
        Point("x", (8, 7)),
    }
    assert not [problem for problem in report.problems if "left out" in problem.what]


def test_tags_and_parts_of_joined_rows(photos: Path, tmp_path: Path) -> None:
    rows = "image,tags,split\na.jpg,coral,\na,sand;coral,val\n"
    (tmp_path / "t.csv").write_text(rows)
    (entry,), _ = import_dataset("tags", tmp_path / "t.csv", None, images=photos, strict=True)
    assert (entry.annotation.tags, entry.split) == (("coral", "sand"), "val")


@pytest.mark.parametrize(("first", "second"), [("x/a.jpg", "y/a.jpg"), ("a.jpg", "a.png")])
def test_rows_that_may_mean_another_image_are_listed(
    photos: Path, tmp_path: Path, first: str, second: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"{HEADER}{first},3,4,x\n{second},5,6,x\n")
    (entry,), report = import_dataset("points", path, None, images=photos)
    assert entry.annotation.points == (Point("x", (4, 3)),)
    assert [str(problem) for problem in report.problems] == [
        f"{path}, {second}: image left out: it comes twice: found a.jpg; "
        f"expected each image once; the first is {path}, {first}"
    ]


def test_tasks_of_one_image_are_told_apart(photos: Path, tmp_path: Path) -> None:
    value = {"x": 10, "y": 20, "width": 1, "keypointlabels": ["x"]}
    result = {"type": "keypointlabels", "original_width": 20, "original_height": 16, "value": value}
    tasks = [
        {"id": number, "data": {"image": "a.jpg"}, "annotations": [{"result": [result]}]}
        for number in (4, 7)
    ]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(tasks))
    _, report = import_dataset("label-studio", path, None, images=photos)
    assert [str(problem) for problem in report.problems] == [
        f"{path}, a.jpg, task 7: image left out: it comes twice: found a.jpg; "
        f"expected each image once; the first is {path}, a.jpg, task 4"
    ]


def test_images_of_one_name_are_told_apart(photos: Path, tmp_path: Path) -> None:
    (photos / "a.png").write_bytes((photos / "empty.png").read_bytes())
    (tmp_path / "t.csv").write_text("image,tags\na.jpg,x\na.png,x\n")
    _, report = import_dataset("tags", tmp_path / "t.csv", None, images=photos)
    (problem,) = report.problems
    assert str(problem).endswith(
        "another has this name: found a.png; expected another name than that of a.jpg"
    )

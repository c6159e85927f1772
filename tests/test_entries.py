"""The lines of annotations.jsonl, and what may be wrong with them."""

import json

import pytest
from made_datasets import PHOTO, make
from PIL import Image

from weakseg.dataset import Dataset
from weakseg.errors import InputError


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "images/a.png", "tags": ["cor', "JSON line cut off: found"),
        ('{"image": "images/a.png"', "JSON line cut off"),
        ('{"image": "images/a.png",', "JSON line cut off"),
        ('{"image": }', "not valid JSON (Expecting value, column 11): found"),
        ("[1]", "not an entry: found [1]; expected a JSON object"),
        ("x", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("\udcff", "not UTF-8"),
        ({}, "entry without an image"),
        ({"image": None}, "entry without an image"),
        ({"image": 3}, "not a path: found 3"),
        ({"image": ""}, "not a path"),
        ({"image": "/etc/passwd"}, "path leaves the data set's folder: found /etc/passwd"),
        ({"image": "images/../../x.png"}, "path leaves the data set's folder"),
        ({"image": "C:/x.png"}, "path leaves the data set's folder"),
        ({"image": "images\\a.png"}, "with forward slashes"),
        ({"image": "images/a.png", "mask": "../m.png"}, "path leaves the data set's folder"),
        ({"image": "images/missing.png"}, "image images/missing.png: no such file"),
        (
            {"image": "images/a.png", "tag": ["coral"]},
            "unknown key: found tag; expected image, mask",
        ),
        ({"image": "images/a.png", "split": 1}, "split: found 1"),
        ({"image": "images/a.png", "meta": 1}, "meta: found 1"),
        ({"image": "images/a.png", "width": 6.0, "height": 4}, "width: found 6.0"),
        ({"image": "images/a.png", "width": 6, "height": 0}, "height: found 0"),
        ({"image": "images/a.png", "tags": ["corals"]}, "class 'corals' is not in the list"),
        (
            {"image": "images/a.png", "points": [{"class": "sea", "xy": [6, 0]}]},
            "point outside the image: found [6, 0]; expected 0 <= x < 6 and 0 <= y < 4",
        ),
        (
            {"image": "images/a.png", "scribbles": [{"class": "sea", "xy": [[1, 1]]}]},
            "scribble of 1 position",
        ),
        (
            {"image": "images/a.png", "boxes": [{"class": "sea", "xyxy": [3, 0, 1, 1]}]},
            "box with x1 <= x0",
        ),
        (
            '{"image": "images/a.png", "points": [{"class": "sea", "xy": [NaN, 0]}]}',
            "found nan; expected a finite number",
        ),
        (
            '{"image": "images/a.png", "points": [{"class": "sea", "xy": [1e999, 0]}]}',
            "found inf; expected a finite number",
        ),
    ],
)
def test_what_is_wrong_with_a_line(tmp_path, line, message):
    folder = make(tmp_path, {"image": "images/b.png"})
    text = line if isinstance(line, str) else json.dumps(line)
    with (folder / "annotations.jsonl").open("ab") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    dataset = Dataset.open(folder)
    assert dataset[0].name == "b"
    with pytest.raises(InputError) as caught:
        dataset[1]
    assert str(caught.value).startswith(f"{folder / 'annotations.jsonl'}:2: ")
    assert message in str(caught.value)


def test_what_only_the_image_shows(tmp_path):
    folder = make(tmp_path, {"image": "images/a.png", "width": 4, "height": 6})
    with pytest.raises(InputError, match=r"jsonl:1: width and height disagree .*found 4 x 6"):
        Dataset.open(folder)[0].read_image()


def test_masks_must_fit(tmp_path):
    folder = make(tmp_path, {"image": "images/a.png"}, {"image": "images/b.png", "mask": "m.png"})
    Image.fromarray(PHOTO[:3, :, 0]).save(folder / "m.png")
    dataset = Dataset.open(folder)
    with pytest.raises(InputError, match="jsonl:1: a has no mask"):
        dataset[0].read_mask()
    with pytest.raises(InputError, match=r"m\.png: mask of another size: found 6 x 3"):
        dataset[1].read_mask()


def test_missing_and_empty_annotations(tmp_path):
    folder = make(tmp_path)
    with pytest.raises(InputError, match=r"annotations\.jsonl: empty data set"):
        Dataset.open(folder)
    (folder / "annotations.jsonl").unlink()
    with pytest.raises(InputError, match=r"annotations\.jsonl: no such file"):
        Dataset.open(folder)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n", "\n \t\n"])
@pytest.mark.parametrize("start", ["", "\n", "\ufeff"])
def test_blank_lines_and_line_ends(tmp_path, start, end):
    folder = make(tmp_path)
    middle = "\r\n" if "\r" in end else "\n\n"
    lines = ['{"image": "images/a.png"}', '{"image": "images/b.png", "tags": ["x"]}']
    (folder / "annotations.jsonl").write_bytes((start + middle.join(lines) + end).encode())
    dataset = Dataset.open(folder)
    assert len(dataset) == 2
    assert dataset[0].name == "a"
    number = 2 + (start == "\n") + (middle == "\n\n")
    with pytest.raises(InputError, match=rf"jsonl:{number}: class 'x'"):
        dataset[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image"', "JSON line cut off"),
        ('{"image": "images/b.png", "split": 3}', "split: found 3; expected text"),
        ('{"image": "images/b.png", "split": " "}', "split: found ' '; expected text"),
    ],
)
def test_a_damaged_line_stops_the_survey(tmp_path, line, message):
    folder = make(tmp_path, {"image": "images/a.png"}, line)
    with pytest.raises(InputError, match=f"jsonl:2: {message}"):
        Dataset.open(folder).splits()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_lines_that_are_not_utf_8(tmp_path, encoding):
    folder = make(tmp_path)
    (folder / "annotations.jsonl").write_bytes('{"image": "images/\xe9.png"}'.encode(encoding))
    with pytest.raises(InputError, match="jsonl:1: not UTF-8"):
        Dataset.open(folder)[0]

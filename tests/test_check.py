import io
import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from weakseg.annotation import KINDS
from weakseg.check import check_dataset, print_report
from weakseg.cli.check import check
from weakseg.dataset import Dataset, DatasetInfo
from weakseg.images import write_mask

INFO = DatasetInfo("reef", ("sea", "coral", "sand"), "sea", boxes_exhaustive=True)
PHOTO = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
POINTS = [{"class": name, "xy": [10 * i, 0]} for i, name in enumerate(INFO.classes)]
SOUND = {"image": "images/a.jpg", "points": POINTS}


def make(folder, *lines, info=INFO):
    """A data set with photographs a.jpg and b.jpg (60 x 40) and mask m.png."""
    (folder / "images").mkdir()
    for name in "ab":
        Image.fromarray(PHOTO).save(folder / "images" / f"{name}.jpg")
    write_mask(folder / "m.png", np.zeros((40, 60), int))
    info.save(folder / "dataset.yaml")
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "annotations.jsonl").write_text("".join(text + "\n" for text in texts))
    return folder


def messages(report, fatal):
    return [str(p) for p in report.problems if p.fatal == fatal]


def second(**keys):
    return {"image": "images/b.jpg"} | keys


def test_a_sound_data_set(tmp_path):
    report = check_dataset(make(tmp_path, SOUND, second()))
    assert report.problems == []
    assert not report.fatal
    assert report.images == {"train": 2}
    assert report.unlabelled == 1
    assert report.labels["coral"] == dict.fromkeys(KINDS, 0) | {"points": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (second(mask="none.png"), "mask: no such file: found"),
        ({"image": "images/c.jpg"}, "image images/c.jpg: no such file"),
        (
            {"image": "images/c.jpg", "width": 60, "height": 40},
            "image: no such file: found",
        ),
        (second(width=40, height=60), "width and height disagree with the image: found 40 x 60"),
        (second(mask="small.png"), "mask: mask of another size: found"),
        (second(mask="rgb.png"), "mask: mask is not a map of class indices: found"),
        (second(mask="high.png"), "mask high.png holds values that are no class: found [4, 9]"),
        (second(tags=["kelp"]), "class 'kelp' is not in the list of classes: found kelp"),
        (
            second(points=[{"class": "sea", "xy": [60, 0]}]),
            "point outside the image: found [60, 0]; expected 0 <= x < 60 and 0 <= y < 40",
        ),
        (second(scribbles=[{"class": "sea", "xy": [[1, 1]]}]), "scribble of 1 position"),
        (second(boxes=[{"class": "sea", "xyxy": [9, 0, 3, 9]}]), "box with x1 <= x0: found [9, 0"),
        (second(boxes=[{"class": "sea", "xyxy": [0, 0, 61, 9]}]), "box outside the image"),
        ('{"image": "images/b.jpg", "tags": [', "JSON line cut off: found"),
        (SOUND, "image listed twice: found a.jpg; expected each image once; it is on line 1"),
        ({"image": "../b.jpg"}, "path leaves the data set's folder"),
        ({"image": "images\\b.jpg"}, r"path with a backslash: found images\b.jpg"),
        ({"image": "images/\ud800.jpg"}, r"not a path: found images/\ud800.jpg"),
        ('{"image": "images/b.jpg", "tags": ["sea"], "tags": []}', "key given twice: found tags"),
        ('{"image": "images/b.jpg", "points": [{"xy": [1, 1], "xy": 2}]}', "key given twice"),
        (second(tag=["coral"]), "unknown key: found tag"),
    ],
)
def test_fatal_problems_of_a_line(tmp_path, line, message):
    folder = make(tmp_path, SOUND, line)
    write_mask(folder / "small.png", np.zeros((4, 6), int))
    write_mask(folder / "high.png", np.resize([0, 1, 4, 9, 255, 3], (40, 60)))
    Image.fromarray(PHOTO).save(folder / "rgb.png")
    report = check_dataset(folder)
    [found] = messages(report, fatal=True)
    assert found.startswith(f"{folder / 'annotations.jsonl'}:2: {message}")
    assert "expected" in found
    assert check(folder) == 1


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_jpeg(tmp_path, share):
    folder = make(tmp_path, SOUND, second(width=60, height=40))
    path = folder / "images" / "b.jpg"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    [found] = messages(check_dataset(folder), fatal=True)
    assert f"annotations.jsonl:2: image: cannot be read: found {path} (" in found
    assert "truncated" in found
    if share == 0.9:
        assert not check_dataset(folder, pixels=False).fatal  # the header is whole


@pytest.mark.parametrize(
    ("lines", "info", "expected"),
    [
        (
            [{"image": "images/a.jpg", "points": POINTS[:2]}, second()],
            INFO,
            ["class without any weak label in training images: found sand"],
        ),
        (
            [SOUND, second(mask="sand.png", split="val")],
            INFO,
            [],
        ),
        (
            [{"image": "images/a.jpg", "mask": "m.png"}, second(mask="sand.png")],
            INFO,
            ["class without any label in training images: found coral"],
        ),
        # tags and boxes need not name the background
        ([{"image": "images/a.jpg", "tags": ["coral", "sand"]}, second()], INFO, []),
        (
            [SOUND, second(tags=["coral"], points=POINTS[:1] + POINTS[2:])],
            INFO,
            ["class is labelled but not among the tags: found sand"],
        ),
        (
            [SOUND, second(tags=["coral"], mask="sand.png")],
            INFO,
            ["class is labelled but not among the tags: found sand"],
        ),
        (
            [SOUND, second(tags=["coral"], points=POINTS[2:])],
            DatasetInfo("x", INFO.classes, "sea", tags_exhaustive=False),
            [],
        ),
        (
            [
                SOUND,
                second(boxes=[{"class": "coral", "xyxy": [0, 0, 9, 9]}], tags=["coral", "sand"]),
            ],
            INFO,
            ["class is labelled but has no box: found sand"],
        ),
        (
            [SOUND | {"split": "val"}, second(split="test")],
            INFO,
            [
                *(f"class without any label in training images: found {c}" for c in INFO.classes),
                "no training images: found {'val': 1, 'test': 1}",
            ],
        ),
        (
            [{"image": "images/a.jpg"}, second()],
            INFO,
            [
                *(f"class without any label in training images: found {c}" for c in INFO.classes),
                "no training image has a label",
            ],
        ),
        (
            [{"image": "images/a.jpg", "mask": "ones.png"}, second()],
            INFO,
            [
                "class without any label in training images: found sea",
                "masks may count classes from 1: found value 3, but never 0",
            ],
        ),
        ([SOUND], INFO, ["files in images/ without a line: found 1, such as images/b.jpg"]),
        (
            [SOUND, second(), {"image": "images/a.png"}],
            INFO,
            ["two images share a name: found a.png"],
        ),
    ],
)
def test_warnings(tmp_path, lines, info, expected):
    folder = make(tmp_path, *lines, info=info)
    write_mask(folder / "sand.png", np.resize([0, 2], (40, 60)))
    write_mask(folder / "ones.png", np.resize([1, 2, 3], (40, 60)))
    if any(line["image"] == "images/a.png" for line in lines):
        Image.fromarray(PHOTO).save(folder / "images" / "a.png")
    report = check_dataset(folder)
    assert messages(report, fatal=True) == []
    found = messages(report, fatal=False)
    assert len(found) == len(expected)
    for message, start in zip(found, expected, strict=True):
        assert re.match(rf".*annotations\.jsonl(:\d+)?: {re.escape(start)}", message)
    assert check(folder) == 0


def test_all_problems_are_collected(tmp_path):
    folder = make(
        tmp_path,
        second(tags=["kelp", "weed"], points=[{"class": "sea", "xy": [99, 0]}, {"class": "sea"}]),
        '{"image"',
        {"image": "images/c.jpg", "boxes": [{"class": "sea", "xyxy": [5, 0, 1, 1]}]},
        SOUND,
    )
    report = check_dataset(folder)
    lines = [p.line for p in report.problems if p.fatal]
    assert lines == [1, 1, 1, 1, 2, 3, 3]
    assert report.images == {"train": 2}
    assert report.labels["coral"]["points"] == 1


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "annotations.jsonl").write_text("\n"), "annotations.jsonl: empty data set"),
        (lambda f: (f / "annotations.jsonl").unlink(), "annotations.jsonl: no such file"),
        (lambda f: (f / "dataset.yaml").unlink(), "dataset.yaml: no such file"),
        (lambda f: (f / "dataset.yaml").write_text("name: ["), "dataset.yaml:1: not valid YAML"),
        (lambda f: (f / "dataset.yaml").write_text("name: a"), "dataset.yaml: classes: found noth"),
    ],
)
def test_a_broken_whole(tmp_path, break_it, message, capsys):
    folder = make(tmp_path, SOUND)
    break_it(folder)
    [found] = messages(check_dataset(folder), fatal=True)
    assert found.startswith(f"{folder}/{message}")
    assert check(folder) == 1
    assert message in capsys.readouterr().out.replace("\n", "")


def test_a_missing_folder(tmp_path, capsys):
    assert check(tmp_path / "missing") == 1
    assert "no such folder" in capsys.readouterr().out


def test_shares_of_pixels(tmp_path):
    boxes = [{"class": "coral", "xyxy": [0, 0, 30, 40]}, {"class": "sand", "xyxy": [0, 0, 60, 10]}]
    scribble = {"class": "sea", "xy": [[0, 0], [59, 0]], "width": 1}
    report = check_dataset(
        make(
            tmp_path,
            {"image": "images/a.jpg", "boxes": boxes, "scribbles": [scribble], "mask": "m.png"},
            second(points=[{"class": "sea", "xy": [30, 20]}]),
        )
    )
    area = 2 * 60 * 40
    assert report.labelled_share == {
        "masks": 0.5,
        "scribbles": 60 / area,
        "points": 113 / area,
        "boxes": (30 * 40 + 30 * 10) / area,
    }


def test_json_for_machines(tmp_path, capsys):
    folder = make(tmp_path, SOUND, second(tags=["kelp"]))
    assert check(folder, json=True) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["fatal"] is True
    assert data["images"] == {"train": 2}
    assert data["labels"]["sea"]["points"] == 1
    assert data["problems"] == [
        {
            "what": "class 'kelp' is not in the list of classes",
            "file": str(folder / "annotations.jsonl"),
            "line": 2,
            "found": "kelp",
            "rule": "one of sea, coral, sand",
            "fatal": True,
        }
    ]


def test_the_printed_report(tmp_path):
    # class names and values may look like markup
    info = DatasetInfo("[bold]x", ("sea", "[red]", "sand"))
    folder = make(tmp_path, {"image": "images/a.jpg", "tags": ["[red]", "[/no]"]}, info=info)
    stream = io.StringIO()
    print_report(check_dataset(folder), Console(file=stream, width=40))
    text = stream.getvalue()
    assert "[bold]x: 1 train image\n" in text
    assert re.search(r"\[red\] +│ +1", text)
    error = next(i for i, line in enumerate(text.splitlines()) if line.startswith("error"))
    assert text.splitlines()[error] == (
        f"error {folder}/annotations.jsonl:1: class '[/no]' is not in the list of classes: "
        "found [/no]; expected one of sea, [red], sand"
    )
    assert "1 error, 3 warnings: the data set cannot be used" in text


def test_memory_does_not_grow_by_an_object_for_each_image(tmp_path):
    def folder_of(count):
        lines = [{"image": f"images/{i}.jpg", "tags": ["sea"]} for i in range(count)]
        folder = tmp_path / str(count)
        folder.mkdir()
        make(folder, *lines)
        for i in range(count):
            (folder / f"images/{i}.jpg").hardlink_to(folder / "images/a.jpg")
        return folder

    def peak(count, folder):
        tracemalloc.start()
        report = check_dataset(folder, pixels=False)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report.images == {"train": count}
        assert not report.fatal
        return size

    peak(10, folder_of(10))
    few, many = folder_of(200), folder_of(1000)
    # Now and then Python's table of all strings grows, too.
    small, large = (min(peak(n, f) for _ in range(3)) for n, f in ((200, few), (1000, many)))
    assert (large - small) / 800 < 250  # bytes; paths and names in dicts took 900


@pytest.mark.parametrize(
    ("keys", "verdict"),
    [
        ({"tags": ["sea"]}, "can be used"),
        ({}, "can be used, but not to train on"),
        ({"tags": ["sea"], "split": "val"}, "can be used, but not to train on"),
    ],
)
def test_the_verdict(tmp_path, keys, verdict):
    stream = io.StringIO()
    report = check_dataset(make(tmp_path, {"image": "images/a.jpg"} | keys))
    print_report(report, Console(file=stream, width=200))
    assert stream.getvalue().strip().endswith(f": the data set {verdict}")


def test_the_example_in_the_documentation(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "data-format.md").read_text()
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL))
    folder = tmp_path / "reef"
    for name in ("images/site1/a.jpg", "images/b.jpg", "images/c.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (640, 480)).save(folder / name)
    write_mask(folder / "masks" / "c.png", np.zeros((480, 640), int))
    (folder / "dataset.yaml").write_text(blocks["yaml"])
    (folder / "annotations.jsonl").write_text(blocks["json"])
    report = check_dataset(folder)
    assert report.problems == []
    assert report.images == {"train": 2, "val": 1}
    assert Dataset.open(folder).kinds() == KINDS[1:]
    assert {*DatasetInfo.load(folder / "dataset.yaml").__dict__} == {
        *re.findall(r"^\| `(\w+)` \|", page.split("## annotations.jsonl")[0], re.MULTILINE)
    }
    done = subprocess.run(
        [sys.executable, "-c", blocks["python"]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "site1/a" in done.stdout
    assert "(480, 640, 3)" in done.stdout

"""A data set on disk or in memory, as a sequence of entries."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from made_datasets import INFO, PHOTO, make

from weakseg.annotation import KINDS, Annotation, Area, Box, Point, Scribble
from weakseg.dataset import Dataset
from weakseg.errors import InputError


def test_open_reads_every_kind(tmp_path):
    folder = make(
        tmp_path,
        {
            "image": "images/a.png",
            "mask": "masks/a.png",
            "width": 6,
            "height": 4,
            "tags": ["coral"],
            "boxes": [{"class": "coral", "xyxy": [0, 0, 6, 4]}],
            "points": [{"class": "sea", "xy": [5, 3]}],
            "scribbles": [{"class": "sand", "xy": [[0, 0], [5, 0]]}],
            "ignore": [{"xyxy": [0, 0, 1, 1]}],
            "meta": {"site": 7},
        },
        {"image": "images/b.png", "split": "val"},
    )
    for path in (folder, str(folder), folder / "dataset.yaml"):
        dataset = Dataset.open(path)
        assert dataset.info == INFO
    entry = dataset[0]
    assert (entry.name, entry.split, entry.line, entry.meta) == ("a", "train", 1, {"site": 7})
    assert entry.annotation == Annotation(
        tags=("coral",),
        boxes=(Box("coral", (0, 0, 6, 4)),),
        points=(Point("sea", (5, 3)),),
        scribbles=(Scribble("sand", ((0, 0), (5, 0)), 3),),
        mask=folder / "masks" / "a.png",
        ignore=(Area((0, 0, 1, 1)),),
    )
    assert entry.mask == folder / "masks" / "a.png"
    assert np.array_equal(entry.read_image(), PHOTO)
    other = dataset[-1]
    assert (other.name, other.split, other.width, other.height) == ("b", "val", 6, 4)
    assert other.annotation == Annotation()
    assert dataset.kinds() == KINDS
    assert dataset.kinds("val") == ()
    assert dataset.splits() == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "no such folder"),
        ("images", "dataset.yaml: no such file"),
        ("images/a.png", "not a data set"),
    ],
)
def test_what_is_no_data_set(tmp_path, path, message):
    with pytest.raises(InputError, match=message):
        Dataset.open(make(tmp_path, {"image": "images/a.png"}) / path)


def test_views(tmp_path):
    lines = [
        {"image": "images/a.png", "split": s, "width": 6, "height": 4, "tags": t, "meta": {"i": i}}
        for i, (s, t) in enumerate([("train", []), ("val", ["sea"]), (None, ["sea"]), ("val", [])])
    ]
    dataset = Dataset.open(make(tmp_path, *lines))
    seen = lambda view: [entry.meta["i"] for entry in view]  # noqa: E731
    assert seen(dataset) == [0, 1, 2, 3]
    assert seen(dataset.split("val")) == [1, 3]
    assert seen(dataset.split("train")) == [0, 2]
    assert seen(dataset.split("test")) == []
    assert seen(dataset.split("val").split("train")) == []
    assert seen(dataset[1:3]) == [1, 2]
    assert seen(dataset.subset([3, 0]).split("val")) == [3]
    assert dataset.split("val")[-1].meta["i"] == 3
    assert dataset.splits() == {"train": 2, "val": 2}
    assert dataset.kinds() == ("tags",)
    assert dataset.subset([0, 3]).kinds(None) == ()
    with pytest.raises(IndexError):
        dataset[4]
    assert seen(pickle.loads(pickle.dumps(dataset.split("val")))) == [1, 3]


def test_a_million_lines_stay_cheap(tmp_path):
    folder = make(tmp_path)
    line = json.dumps({"image": "images/a.png", "width": 6, "height": 4, "tags": ["coral"]}) + "\n"
    with (folder / "annotations.jsonl").open("w") as file:
        for _ in range(100):
            file.write(line * 10_000)
    code = f"""
import resource, time
from weakseg.dataset import Dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = Dataset.open({str(folder)!r})
assert len(dataset) == 1_000_000
assert dataset[999_999].line == 1_000_000
for i, entry in enumerate(dataset):
    if i == 20_000: break
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 150  # MiB; a million Entry objects take more than 1000


def test_no_torch_is_loaded():
    code = "import sys, weakseg.check, weakseg.scaffold; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_from_arrays():
    masks = [np.zeros((4, 6), np.int64), None]
    dataset = Dataset.from_arrays(
        [PHOTO, PHOTO[:, :, 0]],
        [Annotation(points=(Point("coral", (1, 2)),)), None],
        ("sea", "coral"),
        background="sea",
        masks=masks,
        splits=("train", "val"),
    )
    assert [entry.name for entry in dataset] == ["000000", "000001"]
    assert dataset.kinds() == ("masks", "points")
    assert np.array_equal(dataset[0].read_mask(), masks[0])
    assert dataset[1].read_image().shape == (4, 6, 3)
    assert (dataset[1].width, dataset[1].height) == (6, 4)
    assert len(dataset.split("val")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": []}, "annotations: one for each image: found 1; expected 0"),
        ({"images": [], "annotations": []}, "empty data set"),
        ({"masks": [None, None]}, "masks: one for each image: found 2; expected 1"),
        ({"images": [np.zeros(3)]}, "not an image array"),
        ({"annotations": [Annotation(tags=("x",))]}, "image 000000: class 'x' is not"),
        ({"annotations": [Annotation(points=(Point("a", (9, 0)),))]}, "point outside the image"),
        ({"masks": [np.zeros((6, 4), int)]}, "mask of another size: found 4 x 6; expected 6 x 4"),
        ({"masks": [np.zeros((4, 6))]}, "mask: found shape"),
        ({"classes": []}, "classes: found ()"),
        ({"background": "b"}, "background is not a class"),
    ],
)
def test_what_is_wrong_with_arrays(options, message):
    given = {"images": [PHOTO], "annotations": [None], "classes": ["a"]} | options
    with pytest.raises(InputError) as caught:
        Dataset.from_arrays(**given)
    assert message in str(caught.value)


def test_voc_subset(voc_subset):
    dataset = Dataset.open(voc_subset)
    assert dataset.splits() == {"train": 663, "val": 321}
    assert dataset.kinds() == KINDS
    assert sum(1 for _ in dataset) == 984
    entry = dataset.split("val")[5]
    assert entry.read_image().shape[:2] == entry.read_mask().shape

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weakseg.annotation import KINDS, Annotation, Area, Box, Point, Scribble
from weakseg.dataset import Dataset, DatasetInfo, DatasetWriter
from weakseg.errors import InputError
from weakseg.images import read_image

INFO = DatasetInfo("reef", ("sea", "coral", "sand"), "sea")
PHOTO = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
DATA = Path(os.environ.get("WEAKSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))


def make(folder, *lines, yaml=None):
    """A data set with two photographs, a.png and b.png (6 x 4), and these lines."""
    (folder / "images").mkdir(exist_ok=True)
    for name in "ab":
        Image.fromarray(PHOTO).save(folder / "images" / f"{name}.png")
    (folder / "dataset.yaml").write_text(INFO.to_yaml() if yaml is None else yaml)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "annotations.jsonl").write_text("".join(text + "\n" for text in texts))
    return folder


# dataset.yaml


def test_info_round_trip(tmp_path):
    info = DatasetInfo("größe: x", ("yes", "12", "a: b"), None, 200, True, False)
    info.save(tmp_path / "dataset.yaml")
    assert DatasetInfo.load(tmp_path / "dataset.yaml") == info


def test_info_indices():
    assert INFO.unlabelled == 3
    assert INFO.background_index == 0
    assert DatasetInfo("x", ("a",)).background_index is None
    assert INFO.index("sand") == 2
    with pytest.raises(
        InputError, match="'corall' is not in the list of classes: expected 'coral'"
    ):
        INFO.index("corall")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "dataset.yaml: not a data set"),
        ("[1, 2]", "not a data set: found [1, 2]"),
        ("name: [", "dataset.yaml:1: not valid YAML"),
        ("name: a\nclasses: {", "dataset.yaml:2: not valid YAML"),
        ("name: a\nclasses: [b]\nname: c", "dataset.yaml:3: not valid YAML: found key name given"),
        ("name: a", "classes: found nothing; expected a list of names"),
        ("classes: [a]", "name: found nothing; expected text"),
        ("name: a\nclasses: []", "classes: found []"),
        ("name: a\nclasses: {0: a}", "classes: found {0: 'a'}; expected a list of names"),
        ("name: a\nclasses: [yes, b]", "class name: found True; expected text, in quotes"),
        ("name: a\nclasses: [a, 12]", "class name: found 12; expected text, in quotes"),
        ("name: a\nclasses: [a, b, a]", "class listed twice: found a"),
        (
            f"name: a\nclasses: {['x' + str(i) for i in range(255)]}",
            "found 255; expected at most",
        ),
        ("name: a\nclasses: [a]\nbackground: b", "background is not a class: found b"),
        ("name: a\nclasses: [a]\nignore: 0", "ignore is the value of a class or of unlabelled"),
        ("name: a\nclasses: [a]\nignore: 1", "found 1; expected a value above 1"),
        ("name: a\nclasses: [a]\nignore: 256", "ignore: found 256; expected a number in 0..255"),
        ("name: a\nclasses: [a]\nignore: true", "ignore: found True"),
        ("name: a\nclasses: [a]\nboxes_exhaustive: 1", "boxes_exhaustive: found 1; expected true"),
        ("name: a\nclasses: [a]\nclases: [b]", "unknown key: found clases; expected name, classes"),
    ],
)
def test_what_is_wrong_with_a_dataset_yaml(tmp_path, text, message):
    make(tmp_path, {"image": "images/a.png"}, yaml=text)
    with pytest.raises(InputError) as caught:
        Dataset.open(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "dataset.yaml") in str(caught.value)


def test_every_problem_of_a_dataset_yaml_is_listed(tmp_path):
    make(tmp_path, yaml="name: 3\nclasses: [a, a, no]\nignore: x\nfoo: 1\nbar: 2")
    info, problems = DatasetInfo.parse(tmp_path / "dataset.yaml")
    assert info is None
    assert [p.what for p in problems] == [
        "unknown key",
        "unknown key",
        "name",
        "class name",
        "class listed twice",
        "ignore",
    ]


@pytest.mark.parametrize(
    "name", ["a\nignore: 3", "'", "ignore: 3", "- x", "# no", "ü" * 200, "null"]
)
def test_any_name_survives_yaml(tmp_path, name):
    info = DatasetInfo(name, (name, "b" * 300), name)
    info.save(tmp_path / "dataset.yaml")
    assert DatasetInfo.load(tmp_path / "dataset.yaml") == info


# annotations.jsonl


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


# in memory, and writing


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


def test_save_and_open_round_trip(tmp_path):
    annotation = Annotation(
        tags=("coral",),
        boxes=(Box("coral", (0.5, 0, 6, 4)),),
        points=(Point("sea", (5.25, 3)),),
        scribbles=(Scribble("sand", ((0, 0), (5, 0)), 2.5),),
        mask=np.arange(24).reshape(4, 6) % 4,
        ignore=(Area(xy=((0, 0), (1, 0), (0, 1.5))),),
    )
    memory = Dataset.from_arrays(
        [PHOTO, PHOTO[::-1]],
        [annotation, None],
        INFO.classes,
        background="sea",
        names=["site1/a", "site2/a"],
        splits=["train", "val"],
        boxes_exhaustive=True,
    )
    once = memory.save(tmp_path / "one")
    twice = once.save(tmp_path / "two")
    for dataset in (once, twice):
        assert dataset.info == memory.info
        for entry, original in zip(dataset, memory, strict=True):
            assert (entry.name, entry.split) == (original.name, original.split)
            assert np.array_equal(entry.read_image(), original.read_image())
            kinds = {*KINDS} - {"masks"}
            assert entry.annotation.restrict(kinds) == original.annotation.restrict(kinds)
        assert np.array_equal(dataset[0].read_mask(), annotation.mask)
        assert dataset[1].mask is None
    with pytest.raises(InputError, match="exists already and is not overwritten"):
        memory.save(tmp_path / "one")
    memory.subset([1]).save(tmp_path / "one", overwrite=True)
    assert len(Dataset.open(tmp_path / "one")) == 1


@pytest.mark.parametrize("link", [False, True])
def test_writer_takes_files(tmp_path, link):
    source = tmp_path / "photo.jpg"
    Image.fromarray(PHOTO).save(source)
    mask = tmp_path / "mask.png"
    Image.fromarray(PHOTO[:, :, 0] % 3).save(mask)
    with DatasetWriter(tmp_path / "out", INFO, link=link) as writer:
        writer.add(source, mask=mask, meta={"id": 3})
    entry = Dataset.open(tmp_path / "out")[0]
    assert entry.image == tmp_path / "out" / "images" / "photo.jpg"
    assert entry.meta == {"id": 3}
    assert np.array_equal(entry.read_image(), read_image(source))
    assert np.array_equal(entry.read_mask(), PHOTO[:, :, 0] % 3)
    assert os.path.samefile(source, entry.image) == link


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "missing.png"}, "missing.png: no such file"),
        ({"annotation": Annotation(tags=("x",))}, "class 'x' is not in the list"),
        ({"annotation": Annotation(points=(Point("sea", (6, 0)),))}, "point outside the image"),
        ({"mask": np.zeros((3, 3), int)}, "mask of another size"),
        ({"mask": np.full((4, 6), 300)}, "not a mask"),
        ({"name": "../x"}, "path leaves the data set's folder"),
        ({"name": "first"}, "two images share a name: found first"),
    ],
)
def test_a_failed_write_leaves_no_data_set(tmp_path, arguments, message):
    def write():
        with DatasetWriter(tmp_path / "out", INFO) as writer:
            writer.add(PHOTO, name="first")
            writer.add(**({"image": PHOTO} | arguments))

    with pytest.raises(InputError) as caught:
        write()
    assert message in str(caught.value)
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left <= {"images", "masks"}
    assert not list(tmp_path.rglob(".*"))


def test_a_full_disk_leaves_no_data_set(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write():
        with DatasetWriter(tmp_path / "out", INFO) as writer:
            for _ in range(50):
                writer.add(PHOTO, meta={"note": "x" * 1000})

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # acts as a full disk would
    try:
        with pytest.raises(InputError, match=r"annotations\.jsonl: cannot be written"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["images"]


def test_voc_subset():
    if not (DATA / "voc-subset").is_dir():
        pytest.skip(f"no voc-subset in {DATA} (set WEAKSEG_DATA)")
    dataset = Dataset.open(DATA / "voc-subset")
    assert dataset.splits() == {"train": 663, "val": 321}
    assert dataset.kinds() == KINDS
    assert sum(1 for _ in dataset) == 984
    entry = dataset.split("val")[5]
    assert entry.read_image().shape[:2] == entry.read_mask().shape

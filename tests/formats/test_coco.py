from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roundtrip import annotations, assert_same, dataset_of, round_trip

from weakseg.annotation import Annotation, Box, Point, Scribble
from weakseg.errors import InputError, InputErrors
from weakseg.formats.coco import compress, decompress
from weakseg.formats.exporting import export_dataset
from weakseg.formats.importing import import_dataset
from weakseg.formats.rasters import run_lengths, runs_to_patch


def _problems(report: Any) -> str:
    return "\n".join(str(problem) for problem in report.problems)


def test_fixture(photos: Path, fixture: Any, tmp_path: Path) -> None:
    dataset, report = import_dataset("coco", fixture("coco.json"), tmp_path / "out", images=photos)
    assert dataset.info.classes == ("coral", "sponge", "crème")
    assert [entry.name for entry in dataset] == ["a", "sub/b", "empty"]

    a, b, empty = dataset
    assert a.annotation.boxes == (Box("sponge", (12, 9, 18, 14)), Box("coral", (2, 3, 8, 7)))
    expected = np.full((16, 20), 3)
    expected[3:7, 2:8] = 0
    expected[9:14, 12:18] = 1
    expected[11, 14] = 3
    np.testing.assert_array_equal(a.read_mask(), expected)

    assert b.annotation.tags == ("crème", "coral")
    assert b.annotation.points == (Point("coral", (3, 4)),)
    assert b.annotation.boxes == (Box("coral", (2.5, 3.25, 7.5, 7.75)),)  # none for the crowd
    expected = np.full((10, 12), 3)
    expected[0:3, 0:4] = 1
    np.testing.assert_array_equal(b.read_mask(), expected)

    assert not empty.annotation.kinds
    assert report.labels == {"masks": 2, "boxes": 3, "points": 1, "tags": 1}
    assert "keypoints hidden behind something else: found 1" in _problems(report)
    assert len(report.problems) == 1


def test_exhaustive_outlines_make_the_rest_background(photos: Path, fixture: Any) -> None:
    dataset, _ = import_dataset(
        "coco", fixture("coco.json"), None, images=photos, exhaustive=True, kinds=["masks"]
    )
    assert dataset.info.classes == ("background", "coral", "sponge", "crème")
    assert dataset.info.background == "background"
    assert [np.bincount(e.read_mask().ravel()).tolist() for e in dataset] == [
        [320 - 24 - 29, 24, 29],
        [108, 0, 12],
        [64],
    ]


@given(st.lists(st.integers(0, 10**6), max_size=30))
def test_compressed_run_lengths_come_back(counts: list[int]) -> None:
    assert decompress(compress(counts)) == counts


def test_compressed_as_pycocotools_does() -> None:
    # pycocotools 2.0.11: encode() of rows 9..13, columns 12..17 of 20 x 16 without (14, 11).
    inside = np.zeros((16, 20), bool)
    inside[9:14, 12:18] = True
    inside[11, 14] = False
    assert compress(run_lengths(inside, by_columns=True)) == "Y65;00MF0:30000g0"


@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.data())
def test_run_lengths_come_back(h: int, w: int, by_columns: bool, data: Any) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))
    inside = np.array(bits).reshape(h, w)
    counts = run_lengths(inside, by_columns=by_columns)
    patch = runs_to_patch(counts, (h, w), (2, 1), (h + 3, w + 2), by_columns)
    np.testing.assert_array_equal(patch.inside, inside)
    assert patch.corner == (2, 1)


ANNOTATION = {"id": 1, "image_id": 1, "category_id": 1}
BAD_ANNOTATIONS = [
    ({"bbox": [1, 2, 3]}, "bbox: found [1, 2, 3]"),
    ({"bbox": [1, 2, 0, 4]}, "bbox without area"),
    ({"bbox": [1, 2, float("nan"), 4]}, "bbox that is not usable: found nan"),
    ({"bbox": [1, 2, "3", 4]}, "bbox that is not usable: found 3"),
    ({"bbox": [1e300, 2, 3, 4]}, "not usable: found 1e+300"),
    ({"bbox": [500, 2, 3, 4]}, "box outside the image"),
    ({"bbox": "box"}, "bbox: found box"),
    ({"bbox": [-5, -5, 20, 20]}, "box cut at the border"),
    ({"segmentation": [[1, 2, 3, 4]]}, "polygon of too few positions"),
    ({"segmentation": [[1, 2, 3, 4, 5]]}, "expected [x, y, x, y, x, y, ...]"),
    ({"segmentation": [[1, 2, 3, 4, 5, 1e99]]}, "coordinate that is not usable"),
    ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "coordinate that is not usable"),
    ({"segmentation": [[1, 2, 3, 4, 5, {}]]}, "polygon: found"),
    ({"segmentation": [[99, 99, 120, 99, 120, 120]]}, "shape without a pixel"),
    ({"segmentation": "abc"}, "segmentation is not an object"),
    ({"segmentation": {"size": [10, 12], "counts": [121]}}, "do not fill the mask"),
    ({"segmentation": {"size": [10, 12], "counts": [-5, 125]}}, "do not fill the mask"),
    ({"segmentation": {"size": [10, 12], "counts": [2**62, 2**62]}}, "do not fill the mask"),
    ({"segmentation": {"size": [10, 12], "counts": [10**30]}}, "run lengths"),
    ({"segmentation": {"size": [10, 12], "counts": ["a"]}}, "run lengths"),
    ({"segmentation": {"size": [12, 10], "counts": [120]}}, "mask of another size"),
    ({"segmentation": {"size": [10**6, 10**6], "counts": [10**12]}}, "mask of another size"),
    ({"segmentation": {"size": [10, 12], "counts": "\x01"}}, "compressed run lengths"),
    ({"segmentation": {"size": [10, 12], "counts": "ooooooooooooooooo"}}, "compressed run len"),
    ({"segmentation": {"size": None, "counts": "04"}}, "segmentation: size"),
    ({"keypoints": [1, 2]}, "keypoints: found [1, 2]"),
    ({"keypoints": [500, 2, 2]}, "point outside the image"),
    ({"keypoints": [None, 2, 2]}, "keypoint that is not usable"),
    ({"category_id": 99}, "category that is not declared: found 99"),
    ({"category_id": [1]}, "category that is not declared"),
    ({"image_id": 99}, "annotations of images that are not in the file: found 1"),
    ({"image_id": None}, "annotation: image_id"),
    ({"id": 2}, "annotations whose id has been used before: found 1"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ANNOTATIONS)
def test_a_bad_annotation_is_listed_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    data = {
        "images": [{"id": 1, "file_name": "sub/b.png", "width": 12, "height": 10}],
        "annotations": [
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]},
            ANNOTATION | change,
        ],
        "categories": [{"id": 1, "name": "coral"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(data))
    dataset, report = import_dataset("coco", tmp_path / "coco.json", None, images=photos)
    assert Box("coral", (1, 1, 5, 5)) in dataset[0].annotation.boxes
    assert message in _problems(report)
    assert len(report.problems) == 1
    with pytest.raises(InputErrors):
        import_dataset("coco", tmp_path / "coco.json", None, images=photos, strict=True)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([{"id": 1, "file_name": "nowhere.png"}], "image left out: no such image"),
        ([{"id": 1, "file_name": "../../etc/passwd"}], "image left out: no such image"),
        ([{"id": 1, "file_name": "/etc/passwd"}], "image left out: no such image"),
        ([{"id": 1, "file_name": "/root/a.jpg"}], "path leaves the folder of images"),
        ([{"id": 1, "file_name": "C:\\work\\a.jpg"}], "path leaves the folder of images"),
        ([{"id": 1, "file_name": "x/../a.jpg"}], "path leaves the folder of images"),
        ([{"id": 1, "file_name": 5}], "image 1: file_name"),
        ([{"id": [1], "file_name": "a.jpg"}], "image: id"),
        ([7], "image is not an object"),
        ([{"id": 1, "file_name": "a.jpg", "width": 16, "height": 20}], "EXIF rotation"),
        ([{"id": 1, "file_name": "a.jpg", "width": 40, "height": 32}], "for another size"),
        ([{"id": 1, "file_name": "a.jpg", "width": -1, "height": 32}], "image 1: size"),
        ([{"id": 1, "file_name": "a.jpg"}] * 2, "two images with one id"),
        ([{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}], "it comes twice"),
    ],
)
def test_a_bad_image_is_listed_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, images: Any, message: str
) -> None:
    good = {"id": 5, "file_name": "empty.png"}
    data = {"images": [*images, good], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "coco.json").write_text(json.dumps(data))
    dataset, report = import_dataset("coco", tmp_path / "coco.json", None, images=photos)
    assert message in _problems(report)
    assert dataset[-1].name == "empty"
    assert all(str(e.image).startswith(str(photos)) for e in dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "JSON"),
        ("{", "cut off"),
        ('{"images": [', "cut off"),
        ('{"images": [{"id": 1, "file_na', "cut off"),
        ('{"images": [], "categories": [], "annotations": [', "cut off"),
        ("[1, 2, 3]", "not a COCO file"),
        ('"text"', "not a JSON file"),
        ('{"images": []}', "not a COCO file: found ['images']"),
        ('{"images": [}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"images": [], "categories": []} trailing', "after the end"),
        ('{"images": [], "categories": [], "n": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"images": [], "annotations": [], "categories": []}', "no labels found"),
        (
            '{"images": [], "categories": [{"id": 1, "name": "x"}]}',
            "no image of the source can be used",
        ),
    ],
)
def test_a_bad_file_is_refused(photos: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "coco.json").write_text(text)
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        import_dataset("coco", tmp_path / "coco.json", tmp_path / "out", images=photos)
    assert not (tmp_path / "out" / "dataset.yaml").exists()
    assert not (tmp_path / "out" / "annotations.jsonl").exists()


def test_annotations_may_come_before_images(photos: Path, tmp_path: Path, fixture: Any) -> None:
    data = json.loads(fixture("coco.json").read_text())
    keys = ["annotations", "categories", "images"]
    (tmp_path / "c.json").write_text("\ufeff" + json.dumps({k: data[k] for k in keys}))
    one, _ = import_dataset("coco", fixture("coco.json"), None, images=photos)
    two, _ = import_dataset("coco", tmp_path / "c.json", None, images=photos)
    assert [e.annotation for e in one] == [e.annotation for e in two]


@settings(max_examples=60)
@given(annotations("tags", "boxes", "points", "masks", "ignore"))
def test_round_trip(annotation: Annotation) -> None:
    again, _ = round_trip("coco", annotation, "coco.json")
    assert_same(annotation, again)


def test_what_coco_cannot_hold_is_listed(tmp_path: Path) -> None:
    scribble = Scribble("Coral", ((1, 1), (5, 5)))
    mask = np.zeros((10, 12), np.uint8)
    mask[2:4, 2:4] = 1
    dataset = dataset_of(Annotation(scribbles=(scribble, scribble), mask=mask))
    report = export_dataset("coco", dataset, tmp_path / "coco.json")
    assert [str(p) for p in report.problems] == [
        "background: what is outside all shapes (import with --exhaustive): found 1, such as in a",
        "scribbles: left out: found 2, such as in a",
    ]
    with pytest.raises(InputError, match="exists already"):
        export_dataset("coco", dataset, tmp_path / "coco.json")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy 2 about pycocotools
def test_pycocotools_reads_what_is_written(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    mask = np.full((10, 12), 4, np.uint8)
    mask[2:5, 3:9] = 2
    mask[3, 5] = 4
    export_dataset("coco", dataset_of(Annotation(mask=mask)), tmp_path / "coco.json")
    coco = COCO(str(tmp_path / "coco.json"))
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    np.testing.assert_array_equal(coco.annToMask(annotation), mask == 2)
    assert annotation["bbox"] == [3, 2, 6, 3]
    assert annotation["area"] == 17


def test_progress_is_shown_of_both_passes(
    photos: Path, fixture: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import_dataset("coco", fixture("coco.json"), None, images=photos, progress=True)
    shown = capsys.readouterr().err
    assert "reading labels" in shown
    assert "writing images" in shown
    assert "100%" in shown
    import_dataset("coco", fixture("coco.json"), None, images=photos)
    assert capsys.readouterr().err == ""

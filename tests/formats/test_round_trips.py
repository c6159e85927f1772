"""Labels written in a format and read back; COCO, CVAT and Label Studio have files of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roundtrip import (
    CLASSES,
    HEIGHT,
    WIDTH,
    annotations,
    assert_same,
    dataset_of,
    masks,
    round_trip,
)

from weakseg.annotation import Annotation, Area, Box, Point, Scribble
from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.formats.exporting import WRITERS, export_dataset
from weakseg.formats.importing import READERS, import_dataset


@pytest.mark.parametrize(
    ("format", "out", "kinds"),
    [
        ("labelme", "out", ["tags", "boxes", "points", "scribbles", "masks", "ignore"]),
        ("geojson", "out", ["points", "scribbles", "masks", "ignore"]),
        ("scribblesup", "out", ["points", "scribbles"]),
        ("points", "p.csv", ["points"]),
        ("tags", "t.csv", ["tags"]),
        ("yolo", "out", ["boxes"]),
    ],
)
def test_round_trip(format: str, out: str, kinds: list[str]) -> None:
    @settings(max_examples=40)
    @given(annotations(*kinds).filter(lambda a: format != "points" or a.points))
    def check(annotation: Annotation) -> None:
        again, _ = round_trip(format, annotation, out)
        assert_same(annotation, again)

    check()


full_masks = masks().map(lambda mask: np.where(mask == len(CLASSES), 0, mask).astype(np.uint8))


@pytest.mark.parametrize(
    ("format", "strategy"),
    [
        ("masks", masks()),
        ("voc", full_masks),
        ("napari", masks(ignore=False)),
        ("ilastik", masks(ignore=False)),
        ("nnunet", masks(ignore=False)),
    ],
)
def test_round_trip_of_masks(format: str, strategy: st.SearchStrategy[np.ndarray]) -> None:
    options: dict[str, Any] = {"images": None} if format == "nnunet" else {}

    @settings(max_examples=25)
    @given(strategy.filter(lambda mask: (mask < len(CLASSES)).any()))
    def check(mask: np.ndarray) -> None:
        again, written = round_trip(format, Annotation(mask=mask), "out", **options)
        np.testing.assert_array_equal(again.mask, mask)
        assert not written.problems

    check()


@given(st.lists(st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)), min_size=1))
@settings(max_examples=20)
def test_round_trip_of_coralnet(positions: list[tuple[int, int]]) -> None:
    annotation = Annotation(points=tuple(Point("Coral", xy) for xy in positions))
    again, written = round_trip("coralnet", annotation, "p.csv")
    assert_same(annotation, again)
    assert not written.problems


@pytest.mark.parametrize("label", CLASSES)
def test_round_trip_of_folders(label: str, tmp_path: Path) -> None:
    report = export_dataset("folders", dataset_of(Annotation(tags=(label,))), tmp_path / "out")
    assert not report.problems
    dataset, _ = import_dataset("folders", tmp_path / "out", None, classes=CLASSES)
    assert [entry.annotation.tags for entry in dataset] == [(label,)]


def test_every_format_goes_both_ways() -> None:
    assert WRITERS.keys() == READERS.keys()


def _everything() -> Annotation:
    mask = np.full((HEIGHT, WIDTH), len(CLASSES), np.uint8)
    mask[5:] = 0
    mask[2:4, 2:6] = 1
    mask[0, 0] = 255
    return Annotation(
        tags=("Coral", "sea grass"),
        boxes=(Box("Coral", (1, 2, 5, 4)),),
        points=(Point("Coral", (2.25, 3)),),
        scribbles=(Scribble("Coral", ((3, 3), (5, 3)), 5),),
        mask=mask,
        ignore=(Area(xyxy=(7, 7, 9, 9)),),
    )


WIDE = "width of strokes (import with --width)"
LOSSES = {
    "coco": ["scribbles: left out"],
    "coralnet": ["boxes", "fractions of pixels", "ignore", "masks", "scribbles", "tags"],
    "cvat": [WIDE],
    "folders": [
        "boxes",
        "ignore",
        "masks",
        "points",
        "scribbles",
        "tags beside the first of an image",
    ],
    "geojson": ["boxes", "boxes to ignore: written as polygons", "tags", WIDE],
    "ilastik": ["boxes", "drawn", "tags", "unlabelled"],
    "label-studio": [WIDE],
    "labelme": [WIDE],
    "masks": ["boxes", "points", "scribbles", "tags"],
    "napari": ["boxes", "drawn", "tags", "unlabelled"],
    "nnunet": ["boxes", "points", "scribbles", "tags", "unlabelled"],
    "points": ["boxes", "ignore", "masks", "scribbles", "tags"],
    "scribblesup": ["boxes", "ignore", "masks", "tags", WIDE],
    "tags": ["boxes", "ignore", "masks", "points", "scribbles"],
    "voc": ["points", "scribbles", "tags", "void"],
    "yolo": ["ignore", "masks", "points", "scribbles", "tags"],
}
SHORT = {
    "ignore": "areas to ignore: left out",
    "drawn": "points and strokes: drawn as pixels",
    "unlabelled": "pixels to ignore: written as unlabelled",
    "void": "unlabelled pixels: written as void",
} | {kind: f"{kind}: left out" for kind in ("boxes", "masks", "points", "scribbles", "tags")}


@pytest.mark.parametrize("format", WRITERS)
def test_what_a_format_cannot_hold_is_listed(format: str, tmp_path: Path) -> None:
    report = export_dataset(format, dataset_of(_everything()), tmp_path / "out")
    found = sorted(problem.what for problem in report.problems)
    assert found == sorted(SHORT.get(what, what) for what in LOSSES[format])


@pytest.mark.parametrize("format", WRITERS)
def test_parts_are_kept_or_said_to_be_lost(format: str, tmp_path: Path) -> None:
    dataset = Dataset.from_arrays(
        [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 2,
        [_everything()] * 2,
        CLASSES,
        background=CLASSES[0],
        names=["a", "deep/b"],
        splits=["train", "val"],
    )
    single = format in ("coco", "coralnet", "cvat", "label-studio", "points", "tags")
    out = tmp_path / ("out" if not single else "out.json")
    report = export_dataset(format, dataset, out)
    assert report.images == 2
    dataset.save(tmp_path / "native")
    photos = None if format in ("nnunet", "folders", "yolo", "voc") else tmp_path / "native/images"
    again, _ = import_dataset(
        format, out, None, images=photos, classes=CLASSES, predictions=True, kinds=None
    )
    if any("told apart" in problem.what for problem in report.problems):
        assert [entry.split for entry in again] == ["train", "train"]
    else:
        assert sorted(entry.split for entry in again) == ["train", "val"]
    names = {entry.name.replace("__", "/").removesuffix("_0000") for entry in again}
    assert {name.split("/")[-1] for name in names} == {"a", "b"}


def test_masks_of_a_folder_are_written_instead(tmp_path: Path) -> None:
    dataset = dataset_of(_everything())
    (tmp_path / "pred").mkdir()
    with pytest.raises(InputError, match="no image has a mask there"):
        export_dataset("labelme", dataset, tmp_path / "out", masks=tmp_path / "pred")
    export_dataset("masks", dataset, tmp_path / "pred", overwrite=True)
    export_dataset("cvat", dataset, tmp_path / "out.xml", masks=tmp_path / "pred")
    assert "<box" not in (tmp_path / "out.xml").read_text()
    assert (tmp_path / "out.xml").read_text().count("<mask") == 4  # and the two ignored places


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    dataset = Dataset.from_arrays([picture], [_everything()], CLASSES, names=["../a"])
    for format in ("labelme", "masks", "yolo", "geojson"):
        with pytest.raises(InputError, match="leaves the data set's folder"):
            export_dataset(format, dataset, tmp_path / "in" / format)
    assert not [*tmp_path.rglob("a.*")]


@pytest.mark.parametrize("name", ["a/b", "..", "/abs"])
def test_classes_that_cannot_name_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    dataset = Dataset.from_arrays([picture], [Annotation(tags=(name,))], [name])
    with pytest.raises(InputError):
        export_dataset("folders", dataset, tmp_path / "in" / "out")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_class_called_ignore_is_a_class(tmp_path: Path) -> None:
    annotation = replace(_everything(), tags=(), boxes=(), points=(), scribbles=())
    dataset = dataset_of(annotation)
    dataset.info = replace(dataset.info, classes=(*CLASSES[:3], "ignore"))
    for format in ("coco", "cvat", "label-studio", "labelme", "geojson"):
        report = export_dataset(format, dataset, tmp_path / format)
        assert sorted(problem.what for problem in report.problems) == [
            "areas to ignore: left out",
            "ignored pixels: a class is called so",
        ]

"""Files as the tools write them; see fixtures/README.md for how each was made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weakseg.annotation import Annotation, Box, Point, Scribble
from weakseg.formats.importing import READERS, ImportReport, import_dataset

Fixture = Callable[[str], Path]


def _read(format: str, source: Path, photos: Path, **options: Any) -> tuple[dict, ImportReport]:
    dataset, report = import_dataset(format, source, None, images=photos, **options)
    return {entry.name: entry for entry in dataset}, report


def _what(report: ImportReport) -> list[str]:
    return [problem.what for problem in report.problems]


def _rectangles(size: tuple[int, int], ground: int, *filled: tuple[int, ...]) -> np.ndarray:
    mask = np.full(size, ground)
    for x0, y0, x1, y1, value in filled:
        mask[y0:y1, x0:x1] = value
    return mask


def test_coralnet(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("coralnet", fixture("coralnet.csv"), photos)
    assert entries["a"].annotation == Annotation(
        points=(Point("Porit", (4, 3)), Point("CCA", (19, 15)), Point("CCA", (9, 8)))
    )
    assert entries["sub/b"].annotation.points == (Point("Porit", (0, 0)),)
    assert [str(p).split("coralnet.csv")[1] for p in report.problems] == [
        ":6: point without a label: found b.png,9,11,,,"
    ]
    assert report.info.classes == ("CCA", "Porit")


def test_points_without_a_header(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("points", fixture("points.csv"), photos)
    assert entries["a"].annotation.points == (Point("coral", (4, 3.5)),)
    assert entries["sub/b"].annotation.points == (Point("sponge", (1, 2)),)
    assert not report.problems


def test_napari_points(photos: Path, fixture: Fixture) -> None:
    entries, _ = _read("points", fixture("napari/points"), photos)
    assert entries["a"].annotation.points == (Point("coral", (3, 4)), Point("sponge", (6.25, 7.5)))


def test_napari_labels(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("napari", fixture("napari/labels"), photos, classes=["coral", "sponge"])
    expected = _rectangles((16, 20), 2, (2, 3, 8, 7, 0), (12, 9, 18, 14, 1))
    np.testing.assert_array_equal(entries["a"].read_mask(), expected)
    assert not report.problems
    # Without names, values are called after themselves.
    _, report = _read("napari", fixture("napari/labels"), photos)
    assert report.info.classes == ("class 1", "class 2")
    _, report = _read("napari", fixture("napari/labels"), photos, map={2: "sponge", 1: "coral"})
    assert report.info.classes == ("sponge", "coral")


def test_ilastik(photos: Path, fixture: Fixture) -> None:
    entries, _ = _read("ilastik", fixture("ilastik"), photos, classes=["coral", "sponge"])
    expected = _rectangles((16, 20), 2, (2, 3, 8, 7, 0), (12, 9, 18, 14, 1))
    np.testing.assert_array_equal(entries["a"].read_mask(), expected)


def test_nnunet(photos: Path, fixture: Fixture, tmp_path: Path) -> None:
    shutil.copytree(fixture("nnunet"), tmp_path / "set")
    (tmp_path / "set" / "imagesTr").mkdir()
    Image.open(photos / "a.jpg").save(tmp_path / "set" / "imagesTr" / "a_0000.png")
    dataset, report = import_dataset("nnunet", tmp_path / "set", tmp_path / "out")
    assert dataset.info.classes == ("background", "coral", "sponge")
    assert dataset.info.background == "background"
    expected = _rectangles((16, 20), 3, (0, 0, 20, 1, 0), (2, 3, 8, 7, 1), (12, 9, 18, 14, 2))
    np.testing.assert_array_equal(dataset[0].read_mask(), expected)
    assert not report.problems


def test_masks_with_colours(photos: Path, tmp_path: Path) -> None:
    picture = np.zeros((16, 20, 3), np.uint8)
    picture[3:7, 2:8] = (255, 0, 0)
    picture[9:14, 12:18] = (0, 128, 0)
    (tmp_path / "m").mkdir()
    Image.fromarray(picture).save(tmp_path / "m" / "a_mask.png")
    colours = {"#FF0000": "coral", "#000000": None, "#008000": "sponge"}
    entries, report = _read("masks", tmp_path / "m", photos, map=colours)
    assert report.info.classes == ("coral", "sponge")
    expected = _rectangles((16, 20), 2, (2, 3, 8, 7, 0), (12, 9, 18, 14, 1))
    np.testing.assert_array_equal(entries["a"].read_mask(), expected)
    assert _what(report) == ["class left out, as the map says"]


def test_masks_beside_their_images(photos: Path, tmp_path: Path) -> None:
    (photos / "masks").mkdir()
    mask = _rectangles((16, 20), 0, (2, 3, 8, 7, 1), (0, 0, 1, 1, 255)).astype(np.uint8)
    Image.fromarray(mask).save(photos / "masks" / "a.png")
    classes = ["background", "coral"]
    entries, report = _read("masks", photos / "masks", photos, classes=classes)
    np.testing.assert_array_equal(entries["a"].read_mask(), mask)
    assert entries["a"].image == photos / "a.jpg"
    assert report.unused == 2


def test_labelme(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("labelme", fixture("labelme"), photos)
    a = entries["a"].annotation
    assert a.tags == ("sponge",)
    assert entries["sub/b"].annotation.tags == ("coral",)
    assert a.boxes == (Box("sponge", (12, 9, 18, 14)),)
    assert a.points == (Point("coral", (3, 4)),)
    assert a.scribbles == (
        Scribble("sponge", ((1, 8), (5, 8))),
        Scribble("coral", ((1, 10), (3, 12), (6, 12))),
    )
    mask = entries["a"].read_mask()
    expected = _rectangles((16, 20), 2, (2, 3, 8, 7, 0), (11, 12, 14, 13, 0), (10, 13, 11, 15, 0))
    np.testing.assert_array_equal(np.where(mask == 1, 2, mask), expected)
    assert (mask == 1).sum() == pytest.approx(np.pi * 2**2, abs=2)
    assert _what(report) == ["path leaves the folder of images; taken by its name"]


def test_voc_of_datumaro(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("voc", fixture("voc"), photos)
    assert report.info.classes == ("background", "coral", "sponge")
    assert entries["a"].annotation.boxes == (Box("coral", (2, 3, 8, 7)),)
    expected = _rectangles((16, 20), 0, (12, 9, 18, 14, 2), (14, 11, 15, 12, 0))
    np.testing.assert_array_equal(entries["a"].read_mask(), expected)
    assert [entry.split for entry in entries.values()] == ["train", "val"]
    np.testing.assert_array_equal(
        entries["sub/b"].read_mask(), _rectangles((10, 12), 0, (0, 0, 4, 3, 1))
    )
    assert not report.problems


def test_voc_kit(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("voc", fixture("voc_kit"), photos)
    assert entries["a"].annotation.boxes == (Box("person", (2, 3, 8, 7)),)
    assert _what(report) == ["parts of objects"]


def test_scribblesup(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("scribblesup", fixture("scribblesup"), photos, width=5)
    assert entries["a"].annotation == Annotation(
        scribbles=(
            Scribble("background", ((1, 1), (2, 1), (9, 4)), 5),
            Scribble("person", ((12, 10), (14, 12)), 5),
        ),
        points=(Point("person", (17, 3)),),
    )
    assert report.info.background == "background"
    assert not report.problems


@pytest.mark.parametrize("name", ["yolo", "yolo_darknet"])
def test_yolo(photos: Path, fixture: Fixture, name: str) -> None:
    entries, report = _read("yolo", fixture(name), photos)
    assert report.info.classes == ("background", "coral", "sponge")
    assert entries["a"].annotation.boxes == (Box("coral", (2, 3, 8, 7)),)
    (box,) = entries["sub/b"].annotation.boxes
    assert box.xyxy == pytest.approx((0, 0, 4, 3), abs=1e-4)
    assert [entry.split for entry in entries.values()] == ["train", "val"]
    assert not report.problems


def test_tags(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("tags", fixture("tags.csv"), photos)
    found = {name: (e.annotation.tags, e.split) for name, e in entries.items()}
    assert found == {
        "a": (("coral", "sponge"), "train"),
        "sub/b": (("sponge",), "val"),
        "empty": ((), "train"),
    }
    entries, report = _read("tags", fixture("tags_table.csv"), photos)
    assert report.info.classes == ("coral", "sponge", "sea grass")
    found = {name: e.annotation.tags for name, e in entries.items()}
    assert found == {"a": ("coral", "sponge"), "sub/b": ("sponge",), "empty": ()}
    assert not report.problems


def test_folders(photos: Path, tmp_path: Path) -> None:
    for path in ("train/coral/a.jpg", "val/sponge/deep/b.png", "train/coral/empty.png"):
        (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(photos.rglob(Path(path).name)), tmp_path / "set" / path)
    shutil.copy(photos / "a.jpg", tmp_path / "set" / "loose.jpg")
    dataset, report = import_dataset("folders", tmp_path / "set", tmp_path / "out")
    found = {e.name: (e.annotation.tags, e.split) for e in dataset}
    assert found == {
        "loose": ((), "train"),
        "train/coral/a": (("coral",), "train"),
        "train/coral/empty": (("coral",), "train"),
        "val/sponge/deep/b": (("sponge",), "val"),
    }
    assert _what(report) == ["image in no folder of a class"]


def test_geojson(photos: Path, fixture: Fixture) -> None:
    entries, report = _read("geojson", fixture("geojson.geojson"), photos)
    info = report.info
    assert info.classes == ("Stroma", "Tumor")
    a = entries["a"].annotation
    assert a.points == (Point("Stroma", (3, 4)), Point("Stroma", (6.5, 7.5)))
    assert a.scribbles == (
        Scribble("Tumor", ((1, 1), (5, 5))),
        Scribble("Stroma", ((1, 9), (5, 9))),
        Scribble("Stroma", ((9, 9), (9, 12))),
    )
    expected = _rectangles((16, 20), 2, (2, 3, 8, 7, 1), (4, 4, 6, 6, 2))
    np.testing.assert_array_equal(entries["a"].read_mask(), expected)
    mask = entries["sub/b"].read_mask()
    assert (mask[0, :2] == 0).all()
    assert (mask == 0).sum() == 5
    assert _what(report) == ["feature without a class", "geometry of a kind that is not read"]


def test_there_are_more_than_fourteen_formats() -> None:
    assert len(READERS) > 14

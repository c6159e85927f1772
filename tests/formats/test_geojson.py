"""GeoJSON as QuPath writes it: names of classes, objects within objects, names of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from format_files import save_image

from weakseg.annotation import Area, Scribble
from weakseg.dataset import Dataset
from weakseg.formats.importing import ImportReport, import_dataset

STROKE = {"type": "LineString", "coordinates": [[1.5, 1.5], [5.5, 5.5]]}
SQUARE = {"type": "Polygon", "coordinates": [[[2, 3], [8, 3], [8, 7], [2, 7], [2, 3]]]}


def _feature(geometry: dict[str, Any], **properties: Any) -> dict[str, Any]:
    properties = {"objectType": "annotation", **properties}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _stroke(name: str, **properties: Any) -> dict[str, Any]:
    return _feature(STROKE, classification={"name": name}, **properties)


def _save(path: Path, *features: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def _read(source: Path, photos: Path, **options: Any) -> tuple[Dataset, ImportReport]:
    return import_dataset("geojson", source, None, images=photos, **options)


@pytest.mark.parametrize(
    ("properties", "label"),
    [
        ({"classification": {"names": ["Immune cells", "CD3"]}}, "Immune cells: CD3"),
        ({"classification": {"names": ["Tumor"], "color": [200, 0, 0]}}, "Tumor"),
        ({"classification": {"names": [], "name": "Tumor"}}, "Tumor"),
        ({"classification": {"name": "Immune cells: CD3"}}, "Immune cells: CD3"),
        ({"classification": "Tumor"}, "Tumor"),
    ],
)
def test_the_class_of_a_feature(
    photos: Path, tmp_path: Path, properties: dict[str, Any], label: str
) -> None:
    path = _save(tmp_path / "a.geojson", _feature(STROKE, **properties))
    dataset, report = _read(path, photos, strict=True)
    assert report.info.classes == (label,)
    assert dataset[0].annotation.scribbles == (Scribble(label, ((1, 1), (5, 5))),)


@pytest.mark.parametrize(
    "properties",
    [
        {"name": "ROI 3 (check with Jo)"},
        {"name": "ROI 4", "isLocked": True, "classification": None},
        {"classification": {"name": ""}},
        {"classification": {"names": []}},
        {"classification": {"names": [1, 2]}},
    ],
)
def test_an_object_without_a_class(
    photos: Path, tmp_path: Path, properties: dict[str, Any]
) -> None:
    path = _save(tmp_path / "a.geojson", _feature(STROKE, **properties), _stroke("Tumor"))
    dataset, report = _read(path, photos)
    assert [s.label for s in dataset[0].annotation.scribbles] == ["Tumor"]
    assert [problem.what for problem in report.problems] == ["feature without a class"]


def test_a_name_is_the_class_where_nothing_else_is(photos: Path, tmp_path: Path) -> None:
    plain = {"type": "Feature", "geometry": STROKE, "properties": {"name": "sand"}}
    _, report = _read(_save(tmp_path / "a.geojson", plain), photos, strict=True)
    assert report.info.classes == ("sand",)


def test_objects_within_objects_are_read_too(photos: Path, tmp_path: Path) -> None:
    nest = _feature(SQUARE, classification={"name": "Nest"}, childObjects=[_stroke("Cell")])
    tissue = _stroke("Tissue", image="b.png", childObjects=[_stroke("Tumor"), nest])
    dataset, _ = _read(_save(tmp_path / "x.geojson", tissue), photos, strict=True)
    (entry,) = dataset
    assert entry.name == "sub/b"  # children lie in the image of their parent
    assert [s.label for s in entry.annotation.scribbles] == ["Tissue", "Tumor", "Cell"]
    assert (entry.read_mask() == dataset.info.index("Nest")).sum() == 24


@pytest.mark.parametrize(
    ("options", "classes", "ignored"),
    [
        ({}, ("Tumor",), True),
        ({"map": {"Ignore*": "Glass"}}, ("Glass", "Tumor"), False),
        ({"map": {"Ignore*": None}}, ("Tumor",), False),
        ({"classes": ["Tumor"]}, ("Tumor",), True),
    ],
)
def test_qupaths_class_of_what_to_ignore(
    photos: Path, tmp_path: Path, options: dict[str, Any], classes: tuple[str, ...], ignored: bool
) -> None:
    area = _feature(SQUARE, classification={"name": "Ignore*"})
    dataset, report = _read(_save(tmp_path / "a.json", area, _stroke("Tumor")), photos, **options)
    assert report.info.classes == classes
    corners = ((1.5, 2.5), (7.5, 2.5), (7.5, 6.5), (1.5, 6.5))
    assert dataset[0].annotation.ignore == ((Area(xy=corners),) if ignored else ())


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("a.geojson", "a"),
        ("a.JSON", "a"),
        ("a.jpg.geojson", "a"),
        ("A.JPG.GeoJSON", "a"),
        ("scan.tif.geojson", "scan"),
        ("scan.geojson.json", "scan"),
        ("v1.2.geojson", "v1.2"),
        ("b.geojson", "sub/b"),
        ("sub/b.geojson", "sub/b"),
        ("sub/twice.geojson", "sub/twice"),
        ("other/twice.png.json", "other/twice"),
        ("deep/other/twice.json", "other/twice"),
    ],
)
def test_a_file_is_called_after_its_image(
    photos: Path, tmp_path: Path, file: str, image: str
) -> None:
    for name in ("scan.tif", "v1.2.png", "sub/twice.jpg", "other/twice.png"):
        save_image(photos / name, (9, 9))
    _save(tmp_path / "labels" / file, _stroke("Tumor"))
    dataset, _ = _read(tmp_path / "labels", photos, strict=True)
    assert [entry.name for entry in dataset] == [image]


def test_a_message_says_which_feature_is_meant(photos: Path, tmp_path: Path) -> None:
    bad = _feature({"type": "Point", "coordinates": [1]}, classification={"name": "Cell"})
    nest = _stroke("Nest", childObjects=[_stroke("Cell"), bad])
    features = [_stroke("Tumor"), nest, {**_feature(STROKE), "id": "8d0c"}, {**bad, "id": 7}, "x"]
    path = _save(tmp_path / "a.geojson", *features)
    _, report = _read(path, photos)
    assert [str(problem).removeprefix(f"{path}, a.jpg, ") for problem in report.problems] == [
        "feature 2, child 2: position: found [1]; expected [x, y]",
        "feature 3 (8d0c): feature without a class: found {'objectType': 'annotation'}; "
        'expected "properties": {"classification": {"name": ...}}',
        "feature 4 (7): position: found [1]; expected [x, y]",
        "feature 5: feature is not an object: found x",
    ]


def test_objects_nested_deeply(photos: Path, tmp_path: Path) -> None:
    text = json.dumps(_stroke("Tumor", childObjects=[]))
    for _ in range(150):
        text = json.dumps(_stroke("Tumor", childObjects=["#"])).replace('"#"', text)
    (tmp_path / "a.geojson").write_text(text)
    dataset, _ = _read(tmp_path / "a.geojson", photos, strict=True)
    assert len(dataset[0].annotation.scribbles) == 151

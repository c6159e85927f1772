from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roundtrip import CLASSES, annotations, assert_same, dataset_of, round_trip

from weakseg.annotation import Annotation, Box, Point, Scribble
from weakseg.errors import InputError
from weakseg.formats.brush_rle import pack_mask, unpack_mask
from weakseg.formats.exporting import export_dataset
from weakseg.formats.importing import import_dataset


def test_fixture(photos: Path, fixture: Any, tmp_path: Path) -> None:
    dataset, report = import_dataset(
        "label-studio", fixture("label_studio.json"), tmp_path / "out", images=photos
    )
    a, b, empty = dataset
    assert [entry.name for entry in dataset] == ["a", "sub/b", "empty"]
    assert a.annotation.tags == ("coral", "sponge")
    assert a.annotation.boxes == (Box("coral", (2, 3, 8, 7)),)
    assert a.annotation.points == (Point("sponge", (3, 4)),)
    assert a.annotation.scribbles == (
        Scribble("coral", ((1, 8), (5, 8))),
        Scribble("sponge", ((2, 10), (6, 12))),
    )
    mask, info = a.read_mask(), dataset.info
    assert (mask == info.index("sponge")).sum() == 29
    assert mask[11, 14] == info.unlabelled
    assert (mask[1:3, 1:4] == info.index("coral")).all()
    assert (mask == info.index("coral")).sum() == pytest.approx(6 + np.pi * 3 * 2, abs=2)
    assert b.annotation.boxes == (Box("coral", (3, 1, 6, 3)),)  # of the latest annotator
    assert not empty.annotation.kinds
    assert [problem.what for problem in report.problems] == [
        "other annotators' labels of this image",
        "result of a kind that is not read",
        "predictions left out (--predictions takes them)",
    ]


def test_predictions_can_be_taken(photos: Path, fixture: Any) -> None:
    dataset, _ = import_dataset(
        "label-studio", fixture("label_studio.json"), None, images=photos, predictions=True
    )
    assert dataset[2].annotation.boxes == (Box("coral", (0, 0, 4, 4)),)


@settings(max_examples=60)
@given(annotations("tags", "boxes", "points", "scribbles", "masks", "ignore"))
def test_round_trip(annotation: Annotation) -> None:
    again, _ = round_trip("label-studio", annotation, "tasks.json", predictions=True)
    assert_same(annotation, again)


def test_the_interface_names_all_classes(tmp_path: Path) -> None:
    export_dataset("label-studio", dataset_of(Annotation()), tmp_path / "tasks.json")
    root = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    for control in root.findall("*[@toName]"):
        extra = [] if control.tag == "Choices" else ["ignore"]
        assert [label.get("value") for label in control] == [*CLASSES, *extra]


def test_links_are_quoted(tmp_path: Path) -> None:
    export_dataset(
        "label-studio",
        dataset_of(Annotation()),
        tmp_path / "tasks.json",
        prefix="/data/local-files/?d=reef/",
    )
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"] == {"image": "/data/local-files/?d=reef/a.png", "split": "train"}


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**31), st.floats(0, 1))
def test_brush_masks_come_back(h: int, w: int, seed: int, share: float) -> None:
    inside = np.random.default_rng(seed).random((h, w)) < share
    np.testing.assert_array_equal(unpack_mask(pack_mask(inside), (h, w)), inside)


def test_brush_of_long_runs() -> None:
    inside = np.zeros((300, 400), bool)
    inside[100:250] = True
    np.testing.assert_array_equal(unpack_mask(pack_mask(inside), (300, 400)), inside)


def test_brush_as_label_studio_packs_it(fixture: Any) -> None:
    tasks = json.loads(fixture("label_studio.json").read_text())
    (brush,) = [
        r["value"]["rle"]
        for r in tasks[0]["annotations"][0]["result"]
        if r["type"] == "brushlabels"
    ]
    inside = np.zeros((16, 20), bool)
    inside[9:14, 12:18] = True
    inside[11, 14] = False
    np.testing.assert_array_equal(unpack_mask(bytes(brush), (16, 20)), inside)
    assert [*pack_mask(inside)] == brush


def _result(value: dict[str, Any], **change: Any) -> dict[str, Any]:
    kind = next((key for key in value if key.endswith("labels")), "labels")
    size = {"original_width": 12, "original_height": 10, "image_rotation": 0}
    return {"id": "z", "type": kind, **size, "value": value, **change}


BOX = {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["x"]}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (7, "result is not an object"),
        ({"value": [1]}, "result: value"),
        (_result({"x": 10, "y": 10, "width": 50, "height": 50}), "rectangle without a label"),
        (_result(BOX | {"x": "ten"}), "coordinate that is not usable"),
        (_result(BOX | {"x": float("nan")}), "coordinate that is not usable"),
        (_result(BOX | {"x": 1e300}), "coordinate that is not usable"),
        (_result(BOX | {"x": 200}), "box outside the image"),
        (_result(BOX | {"width": 0}), "box with x1 <= x0"),
        (_result(BOX | {"rotation": 2}), "turned box"),
        (_result(BOX | {"rotation": "x"}), "rotation that is not usable"),
        (_result(BOX | {"rectanglelabels": ["x", "y"]}), "label beside the first of a shape"),
        (_result(BOX, image_rotation=90), "image turned in the tool"),
        (_result(BOX, original_width=0), "rectangle: size"),
        (_result(BOX, original_width=1e9), "rectangle: size"),
        (_result(BOX, original_width=13), "two sizes of one image"),
        (_result({"points": [[1, 2], [3]], "polygonlabels": ["x"]}), "position"),
        (_result({"points": [[1, 2], [3, 4]], "polygonlabels": ["x"]}), "too few positions"),
        (_result({"points": 5, "polygonlabels": ["x"]}), "shape: points"),
        (_result({"vertices": [{"x": 1}], "vectorlabels": ["x"]}), "coordinate that is not us"),
        (_result({"vertices": [{"x": 1, "y": 2}], "vectorlabels": ["x"]}), "scribble of 1"),
        (_result({"rle": "abc", "brushlabels": ["x"]}), "brush: rle"),
        (_result({"rle": [1, 300], "brushlabels": ["x"]}), "brush: rle"),
        (_result({"rle": [1, 2], "brushlabels": ["x"]}), "brush mask cut off"),
        (_result({"rle": [255] * 40, "brushlabels": ["x"]}), "brush mask of another size"),
        (_result({"rle": [0, 0, 1, 224] + [0] * 9, "brushlabels": ["x"]}), "brush mask cut off"),
        (_result({"rle": [0, 0, 1, 224] + [255] * 40, "brushlabels": ["x"]}), "longer than it"),
        (_result({"text": ["hm"]}), "result of a kind that is not read"),
    ],
)
def test_a_bad_result_is_listed_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, result: Any, message: str
) -> None:
    good = _result({"x": 50, "y": 50, "width": 1, "keypointlabels": ["x"]}, id="k")
    tag = {"id": "t", "type": "choices", "value": {"choices": ["y"]}}
    task = {"data": {"image": "b.png"}, "annotations": [{"result": [good, result, tag]}]}
    (tmp_path / "t.json").write_text(json.dumps([task]))
    dataset, report = import_dataset("label-studio", tmp_path / "t.json", None, images=photos)
    assert dataset[0].annotation.points == (Point("x", (5.5, 4.5)),)
    assert dataset[0].annotation.tags == ("y",)
    assert message in "\n".join(map(str, report.problems))
    assert len(report.problems) == 1


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"data": {}}, "task without one image"),
        ({"data": {"image": 5}}, "task without one image"),
        ({"data": {"one": "a.jpg", "two": "b.png"}}, "task without one image"),
        ({"data": {"image": "../../etc/passwd"}}, "image left out: no such image"),
        ({"data": {"image": "../a.jpg"}}, "path leaves the folder"),
        ({"data": {"image": "/data/local-files/?d=../../a.jpg"}}, ""),
        ({"data": {"image": "a.jpg"}, "annotations": 7}, "annotations: found 7"),
        ({"data": {"image": "a.jpg"}, "annotations": [{"result": 7}]}, "annotation: result"),
        ({"data": {"image": "a.jpg"}, "annotations": [7]}, ""),
        ({"data": {"picture": "http://x.org/a.jpg?w=7", "id": "3"}}, ""),
    ],
)
def test_a_bad_task_is_listed_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, task: Any, message: str
) -> None:
    tag = {"id": "t", "type": "choices", "value": {"choices": ["y"]}}
    good = {"data": {"image": "b.png"}, "annotations": [{"result": [tag]}]}
    (tmp_path / "t.json").write_text(json.dumps([task, good]))
    dataset, report = import_dataset("label-studio", tmp_path / "t.json", None, images=photos)
    assert dataset[-1].annotation.tags == ("y",)
    assert [message in str(p) for p in report.problems[:1]] == [True] * bool(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"data": {"image": "a.jpg"}, "annot', "cut off"),
        ("[1]", "not a task"),
        ('{"images": [{}]}', "not a task"),
        ('[{"image": "a.jpg", "annotation_id": 4, "label": []}]', "JSON-MIN"),
        ("[]", "no labels found"),
    ],
)
def test_a_bad_file_is_refused(photos: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InputError, match=message):
        import_dataset("label-studio", tmp_path / "t.json", None, images=photos)

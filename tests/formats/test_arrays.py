from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_readme import ROOT, blocks

import weakseg
from weakseg.annotation import Annotation, Box, Point, Scribble
from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.formats import READERS, annotation_from_layers
from weakseg.images import write_mask

CLASSES = ["coral", "sponge"]


def test_layers_of_napari() -> None:
    labels = np.zeros((6, 8), np.int32)
    labels[2, 3] = 1
    labels[4] = 2
    made = annotation_from_layers(
        CLASSES,
        labels=labels,
        points=np.array([[4.0, 3.5]]),
        point_classes=["sponge"],
        paths=[[[1, 2], [3, 4]]],
        path_classes=np.array(["coral"]),
        rectangles=[[[1, 2], [1, 5], [3, 5], [3, 2]]],
        rectangle_classes=["coral"],
        width=5,
        tags=["coral"],
    )
    mask = np.full((6, 8), 2, np.uint8)
    mask[2, 3], mask[4] = 0, 1
    assert made == Annotation(
        tags=("coral",),
        boxes=(Box("coral", (2, 1, 6, 4)),),
        points=(Point("sponge", (3.5, 4)),),
        scribbles=(Scribble("coral", ((2, 1), (4, 3)), 5),),
        mask=mask,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full((2, 2), 3)}, "label without a class: found 3"),
        ({"labels": np.zeros((2, 2, 2), int)}, "labels: found shape"),
        ({"labels": np.zeros((2, 2))}, "labels: found shape"),
        ({"labels": np.ones((2, 2), int), "values": {1: "rock"}}, "class of a label: found rock"),
        ({"points": [[1, 2]]}, "points: one class each: found 0; expected 1"),
        ({"points": [[1, 2, 3]], "point_classes": ["coral"]}, "points: found shape"),
        ({"points": [[1, np.nan]], "point_classes": ["coral"]}, "position"),
        ({"points": [[1, 2]], "point_classes": ["rock"]}, "class 'rock'"),
        ({"paths": [[[1, 2]]], "path_classes": ["coral"]}, "scribble of 1 position"),
        ({"rectangles": [[1, 2]], "rectangle_classes": ["coral"]}, "rectangle"),
    ],
)
def test_bad_layers(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        annotation_from_layers(CLASSES, **change)


def test_shortcuts(photos: Any, fixture: Any) -> None:
    with pytest.warns(UserWarning, match="1 x keypoints hidden behind something else"):
        dataset = Dataset.from_coco(fixture("coco.json"), photos, kinds=["boxes"])
    assert [len(entry.annotation.boxes) for entry in dataset] == [2, 1, 0]
    for format in READERS:
        read = getattr(Dataset, f"from_{format.replace('-', '_')}")
        assert f"the format {format};" in read.__doc__
    assert {*weakseg.__all__} <= {*weakseg._HOMES}
    assert all(getattr(weakseg, name) for name in weakseg.__all__)


@pytest.mark.filterwarnings("ignore")  # what the fixtures hold that cannot be used
def test_the_example_of_the_page_runs(
    photos: Any, fixture: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks(ROOT / "docs/formats.md", "python")
    monkeypatch.chdir(tmp_path)  # the photographs are there
    shutil.copy(fixture("coco.json"), "instances.json")
    with zipfile.ZipFile("task.zip", "w") as archive:
        archive.write(fixture("cvat.xml"), "annotations.xml")
        for path in photos.rglob("*.*"):
            archive.write(path, f"images/{path.relative_to(photos)}")
    write_mask(tmp_path / "predictions/a.png", np.ones((16, 20), np.uint8))
    points = SimpleNamespace(data=np.array([[3, 4]]), properties={"label": ["sand"]})
    labels = SimpleNamespace(data=np.eye(16, 20, dtype=np.uint8))
    viewer = SimpleNamespace(layers={"Labels": labels, "Points": points})
    names: dict[str, Any] = {"viewer": viewer}
    exec(compile(code, "formats.md", "exec"), names)
    assert {*names["dataset"].info.classes} >= {"coral"}
    assert names["annotation"].points == (Point("sand", (4, 3)),)
    assert [path.name for path in (tmp_path / "labels").rglob("*.json")] == ["a.json"]

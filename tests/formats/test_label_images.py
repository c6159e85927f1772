"""The `classes.json` beside label images of napari and ilastik."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weakseg.annotation import Annotation
from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.formats.exporting import export_dataset
from weakseg.formats.importing import import_dataset

NAMES = {"0": None, "1": "water", "2": "coral", "10": "sand"}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A label image of `a.jpg` in which 1, 2 and 3 occur."""
    values = np.zeros((16, 20), np.uint8)
    values[:3, :4] = [1, 2, 2, 3]
    (tmp_path / "labels").mkdir()
    Image.fromarray(values).save(tmp_path / "labels" / "a.png")
    return tmp_path / "labels"


@pytest.mark.parametrize("format", ["napari", "ilastik"])
def test_what_is_written_is_read_with_its_classes(
    format: str, photos: Path, tmp_path: Path
) -> None:
    mask = np.full((16, 20), 3, np.uint8)
    mask[2:5, 3:7] = 2
    classes = ("water", "coral", "sand")
    picture = np.zeros((16, 20, 3), np.uint8)
    dataset = Dataset.from_arrays([picture], [Annotation(mask=mask)], classes, names=["a"])
    export_dataset(format, dataset, tmp_path / "out")
    for source in (tmp_path / "out", tmp_path / "out" / "a.png"):
        again, _ = import_dataset(format, source, None, images=photos, strict=True)
        assert again.info.classes == classes
        np.testing.assert_array_equal(again[0].read_mask(), mask)


@pytest.mark.parametrize(
    ("options", "classes", "row"),
    [
        ({}, ("water", "coral", "sand", "class 3"), [0, 1, 1, 3, 4]),
        ({"map": {3: "sand"}}, ("water", "coral", "sand"), [0, 1, 1, 2, 3]),
        ({"map": {"coral": None, 3: "ignore"}}, ("water", "sand"), [0, 2, 2, 255, 2]),
        ({"unlabelled": 3}, ("water", "coral", "sand"), [0, 1, 1, 3, 3]),
        ({"ignore": 3}, ("water", "coral", "sand"), [0, 1, 1, 255, 3]),
        (
            {"classes": ["Coral", "Water"], "map": {3: "ignore"}},
            ("Coral", "Water"),
            [1, 0, 0, 255, 2],
        ),
    ],
)
def test_names_and_what_the_user_says(
    labels: Path, photos: Path, options: dict[str, Any], classes: tuple[str, ...], row: list[int]
) -> None:
    (labels / "classes.json").write_text(json.dumps(NAMES))
    (entry,), report = import_dataset("napari", labels, None, images=photos, **options)
    assert report.info.classes == classes
    assert entry.read_mask()[0, :5].tolist() == row


def test_a_value_that_the_list_leaves_out_is_unlabelled(labels: Path, photos: Path) -> None:
    (labels / "classes.json").write_text('{"1": "water", "2": null, "3": "sand"}')
    (entry,), _ = import_dataset("napari", labels, None, images=photos, strict=True)
    assert entry.read_mask()[0, :5].tolist() == [0, 2, 2, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["water", "coral"]', "list of classes that is not read: found ['water', 'coral']"),
        ('{"0": "water", "1": "coral"}', "list of classes that is not read"),
        ('{"1": ""}', "list of classes that is not read"),
        ('{"1": ["water"]}', "list of classes that is not read"),
        ('{"water": 1}', "list of classes that is not read: found {'water': 1}"),
        ('{"1": "wat', "JSON file cut off"),
    ],
)
def test_another_file_of_that_name_is_listed(
    labels: Path, photos: Path, text: str, message: str
) -> None:
    file = labels / "classes.json"
    file.write_text(text)
    _, report = import_dataset("napari", labels, None, images=photos)
    assert report.info.classes == ("class 1", "class 2", "class 3")
    assert [problem.file for problem in report.problems] == [str(file)]
    assert message in str(report.problems[0])
    with pytest.raises(InputError, match=r"classes\.json"):
        import_dataset("napari", labels, None, images=photos, strict=True)


def test_masks_have_their_own_list(labels: Path, photos: Path) -> None:
    (labels / "classes.json").write_text(json.dumps(NAMES))
    _, report = import_dataset("masks", labels, None, images=photos)
    assert report.info.classes == ("class 0", "class 1", "class 2", "class 3")

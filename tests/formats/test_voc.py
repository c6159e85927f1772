"""VOC's lists of the parts; what tools write is in test_fixtures.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from format_files import save_image

from weakseg.annotation import Annotation, Box
from weakseg.dataset import Dataset
from weakseg.formats.exporting import export_dataset
from weakseg.formats.importing import import_dataset

NAMES = ("reef", "reef 0", "reef 2", "deep sea/x")
LABELS = (
    "<annotation><object><name>coral</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
    "<xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>"
)


@pytest.mark.parametrize(
    ("lists", "expected", "problems"),
    [
        (
            {"Main/train": "reef\n", "Main/val": "reef 0\n  reef 2\t\n\ndeep sea/x\n"},
            ("train", "val", "val", "val"),
            [],
        ),
        # Flags, and names that look as if they had one.
        (
            {"Main/val": "reef  1\nreef 0\ndeep sea/x -1\n", "Main/test": "reef 2 0\n"},
            ("val", "val", "test", "val"),
            [],
        ),
        (
            {"Main/val": "reef 1 1\nsea/x\nreef\n"},
            ("val", "train", "train", "train"),
            [
                "Main/val.txt:1: listed image without labels: found reef 1 1",
                "Main/val.txt:2: listed image without labels: found sea/x",
            ],
        ),
        (
            {"Main/train": "reef\nreef\n", "Main/val": "reef 2\nreef\n", "Main/test": "reef 2\n"},
            ("train", "train", "val", "train"),
            [
                "Main/val.txt:2: image in two lists: found reef; expected one list;",
                "Main/test.txt:1: image in two lists: found reef 2; expected one list;",
            ],
        ),
        # The lists of masks may divide the images otherwise.
        (
            {"Main/train": "reef\nreef 0\n", "Segmentation/val": "reef\n"},
            ("val", "train", "train", "train"),
            [],
        ),
    ],
)
def test_lists(
    tmp_path: Path, lists: dict[str, str], expected: tuple[str, ...], problems: list[str]
) -> None:
    for name in NAMES:
        save_image(tmp_path / "JPEGImages" / f"{name}.jpg", (8, 8))
        (tmp_path / "Annotations" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(LABELS)
    for name, text in lists.items():
        (tmp_path / "ImageSets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ImageSets" / f"{name}.txt").write_text(text)
    dataset, report = import_dataset("voc", tmp_path, None)
    splits = {entry.name: entry.split for entry in dataset}
    assert tuple(splits[name] for name in NAMES) == expected
    found = [str(problem).split("ImageSets/")[1] for problem in report.problems]
    assert len(found) == len(problems)
    assert all(text.startswith(start) for text, start in zip(found, problems, strict=True))


def test_names_with_spaces_keep_their_part(tmp_path: Path) -> None:
    labels = Annotation(boxes=(Box("coral", (1, 1, 4, 4)),))
    pictures = [np.zeros((8, 8, 3), np.uint8)] * 3
    splits = ["train", "val", "test"]
    names = ["reef 1", "reef 0", "reef x y"]
    dataset = Dataset.from_arrays(pictures, [labels] * 3, ["coral"], names=names, splits=splits)
    export_dataset("voc", dataset, tmp_path / "out")
    again, _ = import_dataset("voc", tmp_path / "out", None, strict=True)
    assert {entry.name: entry.split for entry in again} == dict(zip(names, splits, strict=True))

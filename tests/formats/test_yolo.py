"""Class numbers of YOLO's text files; what tools write is in test_fixtures.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weakseg.formats.importing import import_dataset

PLACE = " .5 .5 .5 .5\n"
UNDECLARED = ["class that is not declared: found 7"]


@pytest.mark.parametrize(
    ("names", "options", "labels", "problems"),
    [
        ({"data.yaml": "names: [coral, sand]"}, {}, ["coral"], UNDECLARED),
        ({"data.yaml": "names: {0: coral, 3: sand}"}, {}, ["coral"], UNDECLARED),
        ({"data.yaml": "names: {0: coral, 7: sand}"}, {}, ["coral", "sand"], []),
        ({"classes.txt": "coral\nsand\n"}, {}, ["coral"], UNDECLARED),
        # Without names of the source, numbers are classes, and the map may mean them.
        ({}, {}, ["class 0", "class 7"], []),
        (
            {},
            {"classes": ["coral", "sand"], "map": {"7": "sand"}},
            ["coral", "sand"],
            [],
        ),
    ],
)
def test_numbers_without_a_name(
    photos: Path,
    tmp_path: Path,
    names: dict[str, str],
    options: dict[str, Any],
    labels: list[str],
    problems: list[str],
) -> None:
    folder = tmp_path / "in"
    for name, text in {**names, "labels/a.txt": f"0{PLACE}\n7{PLACE}"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    dataset, report = import_dataset("yolo", folder, None, images=photos, **options)
    assert [box.label for box in dataset[0].annotation.boxes] == labels
    found = [str(problem).split("; ")[0] for problem in report.problems]
    assert found == [f"{folder / 'labels' / 'a.txt'}:3: {text}" for text in problems]

"""Point CSV: CoralNet's (`Name, Row, Column, Label`), napari's, and the like.

After CoralNet's page "Upload Points and Annotations": rows and columns are pixel indices from 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from weakseg.dataset import Entry
from weakseg.errors import InputError, InputErrors, Problem
from weakseg.files import atomic_path
from weakseg.formats.image_index import ImageIndex
from weakseg.formats.reading import IMAGE_COLUMNS, SPLIT_COLUMNS, as_number, read_rows
from weakseg.formats.records import Reading, ReadOptions, Record, RowPoint, split_name, tidy
from weakseg.formats.writing import WriteOptions, image_name, lose

_NAMES = {
    "image": IMAGE_COLUMNS,
    "row": ("row", "y", "axis-0"),
    "column": ("column", "col", "x", "axis-1"),
    "label": ("label code", "label", "label id", "class", "category", "species", "tag"),
    "split": SPLIT_COLUMNS,
}
_THINGS = {"row": "rows", "column": "columns (x)", "label": "labels"}  # what a header must name


def read_points(source: Path, options: ReadOptions) -> Reading:
    """Open a CSV with a point on each row.

    Columns are found by their names; without a header they are image, row, column, label.
    Where no column names an image, as in napari's files, the CSV's own name does.

    Args:
        source: the CSV file, or a folder of them.
        options: nothing of it is used but the images.

    Raises:
        InputErrors: no CSV there, or one that lacks a column; in a folder, that is listed.
    """
    paths = sorted(source.rglob("*.csv")) if source.is_dir() else [source]
    if not paths:
        raise InputError("no CSV files", file=source)
    tables: dict[Path, dict[str, int]] = {}
    problems: list[Problem] = []
    for path in paths:
        columns, found = _open(path, options.images)
        if any(problem.fatal for problem in found) and not source.is_dir():
            raise InputErrors(found)
        if not found:
            tables[path] = columns
        problems += (replace(problem, fatal=False) for problem in found)
    return Reading(
        lambda: (record for path in tables for record in _records(path, tables[path])),
        problems=problems,
    )


def _open(path: Path, images: ImageIndex) -> tuple[dict[str, int], list[Problem]]:
    """Where each thing stands in the rows of a file, and what keeps it from being read."""
    rows = read_rows(path)
    line, row = next(rows, (1, []))
    columns = _columns(row)
    if columns["header"] and next(rows, None) is None:
        rule = "a header and a row for each point"
        return columns, [Problem("no points in the file", str(path), rule=rule, fatal=False)]
    missing = []
    for key, things in _THINGS.items():
        if key not in columns:
            rule = f"one of {', '.join(_NAMES[key])}"
            missing.append((f"no column of {things}", rule))
    if "image" not in columns and not missing:
        try:
            images.find(path.stem)
        except InputError as error:
            rule = f"one of {', '.join(IMAGE_COLUMNS)}, or a CSV called after its image"
            missing.append(("no column of images", f"{rule} ({error.what}: {error.found})"))
    found = ", ".join(row)
    return columns, [Problem(what, str(path), line, found, rule) for what, rule in missing]


def _columns(row: Sequence[str]) -> dict[str, int]:
    """Where each thing stands; `header` is 1 if the first row says so, 0 if that is a point."""
    cells = [cell.lower().replace("_", " ") for cell in row]
    columns = {"header": 1}
    for key, names in _NAMES.items():
        for name in names:
            if name in cells:
                columns.setdefault(key, cells.index(name))
    try:
        float(row[1]), float(row[2])
    except (ValueError, IndexError):
        return columns
    # An image may be called like a column.
    return {"header": 0, "image": 0, "row": 1, "column": 2, "label": 3}


def _records(path: Path, columns: dict[str, int]) -> Iterator[Record]:
    file = str(path)
    records: dict[str, Record] = {}
    for line, row in islice(read_rows(path), columns["header"], None):
        name = _cell(row, columns["image"]) if "image" in columns else path.stem
        record = records.setdefault(name, Record(name, file=file))
        with record.listing(line):
            if not name:
                raise InputError("row without an image", found=",".join(row))
            record.split = split_name(_cell(row, columns.get("split"))) or record.split
            label = _cell(row, columns["label"])
            if not label:
                raise InputError("point without a label", found=",".join(row))
            x = as_number("column", _cell(row, columns["column"]))
            y = as_number("row", _cell(row, columns["row"]))
            record.points.append(RowPoint(label, (tidy(x), tidy(y)), file, line))
    yield from records.values()


def _cell(row: Sequence[str], index: int | None) -> str:
    return row[index] if index is not None and index < len(row) else ""


def write_points(
    entries: Iterable[Entry], out: Path, options: WriteOptions, *, coralnet: bool = False
) -> None:
    """Write a CSV with a point on each row.

    With `coralnet`, as CoralNet takes it: whole rows and columns, no further column.
    """
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        label = "Label code" if coralnet else "Label"
        writer.writerow(["Name", "Row", "Column", label, *([] if coralnet else ["Split"])])
        for entry in entries:
            lose(entry, options, "tags", "boxes", "scribbles", "masks", "ignore")
            if not entry.annotation.points:
                options.lost.add("images without a point: left out", entry.name)
            name = options.prefix + image_name(entry, options)
            for point in entry.annotation.points:
                x, y = (tidy(v) for v in point.xy)
                if coralnet:
                    options.lost.add("fractions of pixels", entry.name, x % 1 > 0 or y % 1 > 0)
                    x, y = min(round(x), entry.width - 1), min(round(y), entry.height - 1)
                    writer.writerow([name, y, x, point.label])
                else:
                    writer.writerow([name, y, x, point.label, entry.split])


write_coralnet = partial(write_points, coralnet=True)

"""Point CSV: CoralNet's (`Name, Row, Column, Label`), napari's, and the like.

After CoralNet's page "Upload Points and Annotations": rows and columns are pixel indices from 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from weakseg.annotation import Point
from weakseg.dataset import Entry
from weakseg.errors import InputError
from weakseg.files import atomic_path
from weakseg.formats.reading import as_number, read_rows
from weakseg.formats.records import Reading, ReadOptions, Record, split_name, tidy
from weakseg.formats.writing import WriteOptions, image_name, lose

_NAMES = {
    "image": ("name", "image", "image name", "filename", "file name", "file", "path"),
    "row": ("row", "y", "axis-0"),
    "column": ("column", "col", "x", "axis-1"),
    "label": ("label code", "label", "label id", "class", "category", "species", "tag"),
    "split": ("split", "subset"),
}


def read_points(source: Path, options: ReadOptions) -> Reading:
    """Open a CSV with a point on each row.

    Columns are found by their names; without a header they are image, row, column, label.
    Where no column names an image, as in napari's files, the CSV's own name does.

    Args:
        source: the CSV file, or a folder of them.
        options: nothing of it is used.

    Raises:
        InputError: no CSV there.
    """
    paths = sorted(source.rglob("*.csv")) if source.is_dir() else [source]
    if not paths:
        raise InputError("no CSV files", file=source)
    return Reading(lambda: (record for path in paths for record in _records(path)))


def _records(path: Path) -> Iterator[Record]:
    rows = read_rows(path)
    first = next(rows, None)
    if first is None:
        return
    columns = _columns(first[1], path)
    records: dict[str, Record] = {}
    found = rows if columns.pop("header") else _before(first, rows)
    for line, row in found:
        name = _cell(row, columns.get("image")) if "image" in columns else path.stem
        record = records.setdefault(name, Record(name, file=str(path)))
        with record.listing(line):
            if not name:
                raise InputError("row without an image", found=",".join(row))
            record.split = split_name(_cell(row, columns.get("split"))) or record.split
            label = _cell(row, columns.get("label"))
            if not label:
                raise InputError("point without a label", found=",".join(row))
            x = as_number("column", _cell(row, columns["column"]))
            y = as_number("row", _cell(row, columns["row"]))
            record.points.append(Point(label, (tidy(x), tidy(y))))
    yield from records.values()


def _before(
    first: tuple[int, list[str]], rest: Iterable[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _cell(row: Sequence[str], index: int | None) -> str:
    return row[index] if index is not None and index < len(row) else ""


def _columns(row: list[str], path: Path) -> dict[str, int]:
    """Where each thing stands in a row; `header` is 1 if this row says so, 0 if it is a point."""
    cells = [cell.lower().replace("_", " ") for cell in row]
    found = {"header": 1}
    for key, names in _NAMES.items():
        for name in names:
            if name in cells:
                found.setdefault(key, cells.index(name))
    if "row" in found and "column" in found:
        return found
    try:
        float(row[1]), float(row[2])
    except (ValueError, IndexError) as error:
        rule = "a header with Name, Row, Column and Label"
        raise InputError(
            "no columns of points", file=path, found=",".join(row), rule=rule
        ) from error
    return {"header": 0, "image": 0, "row": 1, "column": 2, "label": 3}


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

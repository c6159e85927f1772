"""Tags: a CSV with images and their classes, or a folder for each class."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from weakseg.dataset import Entry
from weakseg.dataset_writer import check_relative
from weakseg.errors import InputError, Problem
from weakseg.files import atomic_path
from weakseg.formats.image_index import ImageIndex
from weakseg.formats.reading import IMAGE_COLUMNS, SPLIT_COLUMNS, read_rows
from weakseg.formats.records import Reading, ReadOptions, Record, SourceClass, split_name
from weakseg.formats.writing import WriteOptions, image_name, lose, place_image

_YES, _NO = frozenset({"1", "1.0", "true", "yes", "x"}), frozenset({"", "0", "0.0", "false", "no"})
_PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def read_tags(source: Path, options: ReadOptions) -> Reading:
    """Open a CSV of tags.

    Each row has an image and its tags (`a.jpg,coral;sand`, or `a.jpg,coral,sand`, or a row for
    each pair), or there is a column for each class that holds 0 or 1.

    Args:
        source: the CSV file.
        options: nothing of it is used but the images.
    """
    path = source
    if source.is_dir():
        found = sorted(source.glob("*.csv"))
        if len(found) != 1:
            raise InputError("one CSV file is needed", file=source, found=len(found))
        path = found[0]
    problems = _first_row_problems(path, options.images)
    header = _one_hot(path)
    names = [name for name in header or [] if name.lower() not in SPLIT_COLUMNS]
    classes = [SourceClass(name) for name in names]
    return Reading(lambda: _records(path, header), classes, problems=problems)


def _first_row_problems(path: Path, images: ImageIndex) -> list[Problem]:
    """That a file has no rows.

    Raises:
        InputError: the first row is neither a header nor about an image; it is not to be read as
            tags of an image that is missing.
    """
    rows = read_rows(path)
    line, row = next(rows, (1, ["image"]))
    if _is_header(row):
        rule = "a header and a row for each image"
        problem = Problem("no images in the file", str(path), rule=rule, fatal=False)
        return [problem] if next(rows, None) is None else []
    if not PurePosixPath(row[0]).suffix:
        try:
            images.find(row[0])
        except InputError as error:
            rule = f"one of {', '.join(IMAGE_COLUMNS)} in front, or an image and its tags"
            raise InputError(
                "no column of images", file=path, line=line, found=", ".join(row), rule=rule
            ) from error
    return []


def _is_header(row: Sequence[str]) -> bool:
    return row[0].lower().replace("_", " ") in IMAGE_COLUMNS


def _one_hot(path: Path) -> list[str] | None:
    """The classes of the columns of a table of 0 and 1, None for a table of names."""
    rows = read_rows(path)
    header = next(rows, (0, [""]))[1]
    first = next(rows, None)
    if first is None or not _is_header(header) or len(header) < 2:
        return None
    cells = [
        c for h, c in zip(header[1:], first[1][1:], strict=False) if h.lower() not in SPLIT_COLUMNS
    ]
    return header[1:] if cells and all(c.lower() in _YES | _NO for c in cells) else None


def _records(path: Path, one_hot: list[str] | None) -> Iterator[Record]:
    records: dict[str, Record] = {}
    header: list[str] = []
    for line, row in read_rows(path):
        if not header:
            header = row if _is_header(row) else ["image"]
            if header is row:
                continue
        record = records.setdefault(row[0], Record(row[0], file=str(path)))
        with record.listing(line):
            if not row[0]:
                raise InputError("row without an image", found=",".join(row))
            for index, cell in enumerate(row[1:], 1):
                title = header[index] if index < len(header) else ""
                if title.lower() in SPLIT_COLUMNS:
                    record.split = split_name(cell)
                elif one_hot is None:
                    record.tags += [tag.strip() for tag in cell.split(";") if tag.strip()]
                elif cell.lower() in _YES:
                    record.tags.append(title)
                elif cell.lower() not in _NO:
                    raise InputError(f"tag {title}", found=cell, rule="0 or 1")
    yield from records.values()


def write_tags(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a CSV with an image, its tags and its split on each row."""
    for name in options.info.classes:
        if ";" in name or name != name.strip():
            rule = "no semicolon and no space at the ends"
            raise InputError("class that a CSV of tags cannot hold", found=name, rule=rule)
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "tags", "split"])
        for entry in entries:
            lose(entry, options, "boxes", "points", "scribbles", "masks", "ignore")
            name = options.prefix + image_name(entry, options)
            writer.writerow([name, ";".join(entry.annotation.tags), entry.split])


def read_folders(source: Path, options: ReadOptions) -> Reading:
    """Open a folder that has a folder of images for each class.

    These may lie in `train`, `val` and `test` folders.

    Args:
        source: the folder.
        options: nothing of it is used.
    """
    if not source.is_dir():
        raise InputError("not a folder", file=source, rule="a folder for each class")
    return Reading(
        lambda: map(_folder_record, options.images.paths), total=len(options.images.paths)
    )


def _folder_record(path: str) -> Record:
    record = Record(path, file="folders")
    parts = [*PurePosixPath(path).parts[:-1]]
    if len(parts) > 1 and parts[0].lower() in _PARTS:
        record.split = split_name(parts.pop(0))
    if parts:
        record.tags.append(parts[0])
    else:
        record.note("image in no folder of a class", path)
    return record


def write_folders(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a folder for each class with links to its images."""
    for entry in entries:
        lose(entry, options, "boxes", "points", "scribbles", "masks", "ignore")
        if not entry.annotation.tags:
            options.lost.add("images without a tag: left out", entry.name)
            continue
        first, *rest = entry.annotation.tags
        options.lost.add("tags beside the first of an image", entry.name, len(rest))
        folder = Path(check_relative(first))
        if len(folder.parts) > 1:
            raise InputError("class that cannot name a folder", found=first, rule="no slash")
        if len(options.splits) > 1:
            folder = Path(entry.split) / folder
        place_image(entry, out / folder / image_name(entry, options))

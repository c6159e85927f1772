"""`weakseg init`: start a data set from a folder of images."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from weakseg.annotation import Annotation
from weakseg.dataset import Dataset
from weakseg.dataset_info import DatasetInfo
from weakseg.dataset_writer import DatasetWriter
from weakseg.errors import InputError, InputErrors, Problem
from weakseg.images import find_images

_HEADERS = frozenset({"image", "images", "file", "filename", "file name", "name", "path"})


def init_dataset(
    images: str | os.PathLike[str],
    *,
    classes: str | Sequence[str],
    tags: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Start a data set in the native format from a folder of images.

    Args:
        images: folder of images, searched with its subfolders.
        classes: names, as a list or separated by commas; one called `background` becomes the
            background class.
        tags: CSV with an image (its path in the folder, its file name or its stem) and its tags
            on each row: `a.jpg,coral;sand`, or a row for each pair. A header row is optional.
        out: folder of the data set. Default: `images` itself if the images are in a folder
            `images` within it, else a new folder called `<images>-weakseg`. Images that are not
            there already are linked.

    Returns:
        The data set, opened.

    Raises:
        InputError: there is a data set already, no images, or (all at once) images or tags in
            the CSV that are not known.
    """
    source = Path(images)
    if not source.is_dir():
        raise InputError("no such folder", file=source, rule="a folder of images")
    if (source / "images").is_dir():
        folder = Path(out or source)
        source = source / "images"
    else:
        folder = Path(out or f"{source.resolve()}-weakseg")
    names = _split_classes(classes)
    background = "background" if "background" in names else None
    info = DatasetInfo(folder.resolve().name or "dataset", names, background)
    paths = _image_names(source)
    annotations = {} if tags is None else read_tags(tags, paths, names)
    with DatasetWriter(folder, info, link=True) as writer:
        for name, path in paths.items():
            writer.add(path, annotations.get(name), name=name)
    return Dataset.open(folder)


def read_tags(
    file: str | os.PathLike[str], images: dict[str, Path], classes: Sequence[str]
) -> dict[str, Annotation]:
    """Read a CSV of tags.

    Args:
        file: the CSV; see `init_dataset`.
        images: path of each image by its name.
        classes: the tags that may occur.

    Returns:
        An annotation for each image that the CSV names, by the image's name.

    Raises:
        InputErrors: everything that is unknown, with the line it is on.
    """
    known: dict[str, list[str]] = defaultdict(list)
    for name, path in images.items():
        for key in {name, name + path.suffix, path.name, path.stem}:
            known[key].append(name)
    found: dict[str, list[str]] = defaultdict(list)
    problems = []
    for line, row in _rows(file):
        image = row[0].replace("\\", "/").removeprefix("./").removeprefix("images/")
        if len(matches := known.get(image, [])) != 1:
            what = "several images of that name" if matches else "no such image"
            problems.append(Problem(what, str(file), line, row[0], "a file in the folder"))
            continue
        tags = [tag.strip() for cell in row[1:] for tag in cell.split(";") if tag.strip()]
        for tag in tags:
            if tag not in classes:
                rule = f"one of {', '.join(classes)}"
                problems.append(Problem("unknown tag", str(file), line, tag, rule))
        found[matches[0]] += tags
    if problems:
        raise InputErrors(problems)
    return {name: Annotation(tags=tuple(tags)) for name, tags in found.items()}


def _rows(file: str | os.PathLike[str]) -> list[tuple[int, list[str]]]:
    """Rows that are not blank, without a header, and their lines."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except FileNotFoundError as error:
        raise InputError("no such file", file=file) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        rule = "a CSV file in UTF-8"
        raise InputError("cannot be read", file=file, found=str(error), rule=rule) from error
    rows = [(line, row) for line, row in rows if any(row)]
    if rows and rows[0][1][0].lower() in _HEADERS:
        rows = rows[1:]
    for line, row in rows:
        if len(row) < 2:
            raise InputError(
                "row without tags", file=file, line=line, found=row[0], rule="image,tag;tag"
            )
    return rows


def _split_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str):
        classes = [name.strip() for name in classes.split(",") if name.strip()]
    return tuple(classes)


def _image_names(folder: Path) -> dict[str, Path]:
    """The images of a folder by their paths in it without suffix."""
    names: dict[str, Path] = {}
    problems = []
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in names:
            rule = f"names that differ without their suffix, unlike {names[name].name}"
            problems.append(Problem("two images share a name", str(path), rule=rule))
        names.setdefault(name, path)
    if problems:
        raise InputErrors(problems)
    return names

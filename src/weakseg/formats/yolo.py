"""YOLO text files: boxes, and polygons where a line has more than four numbers.

After the pages of Ultralytics ("Object Detection Datasets", "Instance Segmentation Datasets",
"Pose Estimation Datasets") and of Darknet. A file for each image, a line for each object:
its class number, then centre, width and height of the box, as shares of the image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from weakseg.annotation import Box, Point
from weakseg.dataset import Entry
from weakseg.dataset_info import UniqueKeyLoader
from weakseg.errors import InputError
from weakseg.files import write_text
from weakseg.formats.reading import as_number, read_text
from weakseg.formats.records import (
    Outline,
    Reading,
    ReadOptions,
    Record,
    SourceClass,
    split_name,
    to_centre,
    value_name,
)
from weakseg.formats.writing import WriteOptions, image_name, lose, place_image
from weakseg.images import image_size

_NO_LABELS = frozenset(
    {"classes", "train", "val", "valid", "test", "obj", "readme", "requirements"}
)


def read_yolo(source: Path, options: ReadOptions) -> Reading:
    """Open a YOLO data set.

    Args:
        source: folder with `labels` (or text files right in it) and `data.yaml`, `classes.txt`
            or `obj.names`; or the `data.yaml` itself.
        options: `classes`: names, where there is no such file.
    """
    root = source if source.is_dir() else source.parent
    declared, keypoints = _names(source)
    names = declared or dict(enumerate(options.classes or ()))
    name_of = partial(_class_name, names, complete=bool(declared))
    folder = root / "labels" if (root / "labels").is_dir() else root
    paths = sorted(p for p in folder.rglob("*.txt") if p.stem.lower() not in _NO_LABELS)
    if not paths:
        raise InputError("no YOLO labels", file=folder, rule="a text file for each image")

    def records() -> Iterator[Record]:
        for path in paths:
            yield _record(path, path.relative_to(folder), name_of, keypoints, options)

    return Reading(records, [SourceClass(n, i) for i, n in names.items()], total=len(paths))


def _names(source: Path) -> tuple[dict[int, str], int]:
    """Names of the classes by their numbers, and the numbers that a keypoint has (0: none)."""
    root = source if source.is_dir() else source.parent
    files = [source] if source.is_file() else sorted(root.glob("*.y*ml"))
    for file in files:
        try:
            data = yaml.load(read_text(file), UniqueKeyLoader)
        except (yaml.YAMLError, RecursionError) as error:
            raise InputError("not valid YAML", file=file, found=str(error)) from error
        if isinstance(data, dict) and "names" in data:
            shape = data.get("kpt_shape")
            keypoints = shape[1] if isinstance(shape, list) and len(shape) == 2 else 0
            return _checked(data["names"], file), keypoints if keypoints in (2, 3) else 0
    for name in ("classes.txt", "obj.names", "labels/classes.txt"):
        if (root / name).is_file():
            lines = [line.strip() for line in read_text(root / name).splitlines()]
            return dict(enumerate(line for line in lines if line)), 0
    return {}, 0


def _checked(names: Any, file: Path) -> dict[int, str]:
    table = dict(enumerate(names)) if isinstance(names, list) else names
    rule = "a list of names, or a number for each name"
    if not isinstance(table, dict) or not all(isinstance(key, int) for key in table):
        raise InputError("names", file=file, found=names, rule=rule)
    if not all(isinstance(value, str | int | float) for value in table.values()):
        raise InputError("names", file=file, found=names, rule=rule)
    # YAML reads yes, no and 12 as something else than text.
    return {key: str(value) for key, value in table.items()}


def _class_name(names: dict[int, str], number: int, *, complete: bool) -> str:
    """The class of a number; where the source names its classes, others are a mistake."""
    if complete and number not in names:
        rule = "a number that the source has a name for"
        raise InputError("class that is not declared", found=number, rule=rule)
    return names.get(number, value_name(number))


def _record(
    path: Path,
    place: Path,
    name_of: Callable[[int], str],
    keypoints: int,
    options: ReadOptions,
) -> Record:
    record = Record(place.with_suffix(".jpg").as_posix(), file=str(path))
    # Darknet's folders are called obj_train_data and obj_valid_data.
    part = place.parts[0].removeprefix("obj_").removesuffix("_data")
    if len(place.parts) > 1 and split_name(part) in ("train", "val", "test"):
        record.split = split_name(part)
    with record.listing():
        found = options.images.folder / options.images.find(record.image)
        record.size = image_size(found)
        for number, line in enumerate(read_text(path).splitlines(), 1):
            with record.listing(number):
                if line.strip():
                    _add(record, line.split(), name_of, keypoints)
    return record


def _add(record: Record, words: list[str], name_of: Callable[[int], str], keypoints: int) -> None:
    assert record.size is not None
    width, height = record.size
    index = as_number("class", words[0])
    if not index.is_integer() or index < 0:
        raise InputError("class", found=words[0], rule="a whole number from 0 on")
    label = name_of(int(index))
    shares = [as_number("coordinate", word) for word in words[1:]]
    if len(shares) in (4, 5) or (keypoints and len(shares) > 4):
        # The fifth number of a prediction is its confidence.
        x, y, w, h = shares[:4]
        corners = ((x - w / 2) * width, (y - h / 2) * height)
        record.boxes.append(Box(label, (*corners, corners[0] + w * width, corners[1] + h * height)))
        if keypoints:
            record.points += _keypoints(label, shares[4:], keypoints, record.size)
    elif len(shares) >= 6 and len(shares) % 2 == 0:
        positions = zip(shares[::2], shares[1::2], strict=True)
        record.regions.append(Outline.of(label, [(x * width, y * height) for x, y in positions]))
    else:
        rule = "class x y width height, or class and three or more positions"
        raise InputError(f"line of {len(words)} numbers", found=" ".join(words), rule=rule)


def _keypoints(
    label: str, numbers: list[float], each: int, size: tuple[int, int]
) -> Iterator[Point]:
    if len(numbers) % each:
        raise InputError("keypoints", found=len(numbers), rule=f"{each} numbers each")
    for i in range(0, len(numbers), each):
        x, y, visible = (*numbers[i : i + each], 2.0)[:3]
        if visible == 2 and (x or y):
            yield Point(label, (to_centre(x * size[0]), to_centre(y * size[1])))


def write_yolo(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a YOLO data set of boxes with `data.yaml` and links to the images."""
    for entry in entries:
        lose(entry, options, "tags", "points", "scribbles", "masks", "ignore")
        lines = []
        for box in entry.annotation.boxes:
            x0, y0, x1, y1 = box.xyxy
            x, w = (x0 + x1) / 2 / entry.width, (x1 - x0) / entry.width
            y, h = (y0 + y1) / 2 / entry.height, (y1 - y0) / entry.height
            index = options.info.index(box.label)
            lines.append(f"{index} {x:.10g} {y:.10g} {w:.10g} {h:.10g}\n")
        write_text(out / "labels" / entry.split / f"{entry.name}.txt", "".join(lines))
        place_image(entry, out / "images" / entry.split / image_name(entry, options))
    data: dict[str, Any] = {"path": os.fspath("."), "names": dict(enumerate(options.info.classes))}
    data |= {split: f"images/{split}" for split in options.splits}
    write_text(out / "data.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))

"""COCO JSON: boxes, polygons, run lengths, keypoints as points, image-level categories.

After the format page of cocodataset.org and pycocotools. Coordinates: boxes and polygons on the
edges of pixels, keypoints as pixel indices. The file is read in pieces: only where each
annotation stands is kept in memory.
"""

from __future__ import annotations

import json
import mmap
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from weakseg.annotation import Box, Point
from weakseg.errors import InputError, Problem
from weakseg.formats.reading import Item, as_size, check_number, json_items, member
from weakseg.formats.records import (
    Outline,
    Reading,
    ReadOptions,
    Record,
    Region,
    Runs,
    SourceClass,
)

_ID = (int, str)


def read_coco(source: Path, options: ReadOptions) -> Reading:
    """Open a COCO file.

    Args:
        source: the JSON file, or a folder with a single one in it or in its `annotations`.
        options: `progress`.

    Raises:
        InputError: not a COCO file, or duplicate ids of categories.
    """
    path = _find_file(source)
    index = _index(path, options.progress)
    table = {c.id: c.name for c in index.classes}
    return Reading(
        lambda: _records(path, index, table),
        index.classes,
        Counter({table[key]: n for key, n in index.used.items() if key in table}),
        len(index.images),
        index.problems,
    )


def _find_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    found = sorted(source.glob("*.json")) or sorted(source.glob("annotations/*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError("one JSON file is needed", file=source, found=names)
    return found[0]


class _Index:
    """What is known of a COCO file after one pass."""

    def __init__(self) -> None:
        self.images: list[tuple[Any, str, tuple[int, int] | None, list[Any]]] = []
        self.classes: list[SourceClass] = []
        self.problems: list[Problem] = []
        self.used: Counter[Any] = Counter()
        self.rows: dict[Any, int] = {}  # of images, by their ids
        self.early: list[Any] = []  # image ids of annotations that come before the images
        self.starts = array("q")
        self.ends = array("q")
        self.of_image = array("q")
        self.ids = array("q")


def _index(path: Path, progress: bool) -> _Index:
    index = _Index()
    add = {"images": _index_image, "categories": _index_category, "annotations": _index_annotation}
    seen: set[str] = set()
    for item in _watched(json_items(path, seen), path, progress):
        try:
            if item.key in add:
                add[item.key](index, item)
        except InputError as error:
            index.problems.append(Problem.from_error(error, fatal=False).at(path))
    if "images" not in seen or "categories" not in seen:
        rule = "an object with images, annotations and categories"
        raise InputError("not a COCO file", file=path, found=sorted(seen), rule=rule)
    for i, owner in enumerate(index.early):
        index.of_image[i] = index.rows.get(owner, -1)
    _check(index, path)
    return index


def _watched(items: Iterable[Item], path: Path, progress: bool) -> Iterator[Item]:
    """The items, with a bar that shows how much of the file has been read."""
    size = path.stat().st_size if path.is_file() else 0
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("reading labels", total=size)
        for number, item in enumerate(items):
            if number % 1000 == 0:
                bar.update(task, completed=item.end)
            yield item
        bar.update(task, completed=size)


def _index_annotation(index: _Index, item: Item) -> None:
    owner = member(item.value, "image_id", _ID, "annotation")
    category = item.value.get("category_id")
    own = item.value.get("id")
    index.starts.append(item.start)
    index.ends.append(item.end)
    index.ids.append(hash(own if isinstance(own, _ID) else ("none", len(index.starts))))
    index.of_image.append(index.rows.get(owner, -1))
    if not index.rows:
        index.early.append(owner)
    if isinstance(category, _ID):
        index.used[category] += 1


def _index_image(index: _Index, item: Item) -> None:
    image = item.value
    key = member(image, "id", _ID, "image")
    name = member(image, "file_name", str, f"image {key}")
    if key in index.rows:
        raise InputError("two images with one id", found=f"{key}, {name}", rule="unique ids")
    size = None
    if "width" in image or "height" in image:
        size = as_size(f"image {key}", image.get("width"), image.get("height"))
    tags = image.get("category_ids") or []
    index.rows[key] = len(index.images)
    index.images.append((key, name, size, tags if isinstance(tags, list) else []))


def _index_category(index: _Index, item: Item) -> None:
    category = item.value
    key = member(category, "id", _ID, "category")
    name = member(category, "name", str, f"category {key}")
    if any(c.id == key for c in index.classes):
        raise InputError("two categories with one id", found=f"{key}, {name}", rule="unique ids")
    colour = category.get("color")
    rgb = None
    if isinstance(colour, list) and len(colour) == 3 and all(isinstance(v, int) for v in colour):
        rgb = (colour[0], colour[1], colour[2])
    index.classes.append(SourceClass(name, key, rgb))


def _check(index: _Index, path: Path) -> None:
    lost = sum(row == -1 for row in index.of_image)
    if lost:
        what = "annotations of images that are not in the file"
        index.problems.append(Problem(what, str(path), found=lost, fatal=False))
    # An annotation counts once; the later ones of its id are marked as lost.
    _, first = np.unique(np.frombuffer(index.ids, np.int64), return_index=True)
    if len(first) < len(index.ids):
        twice = np.setdiff1d(np.arange(len(index.ids)), first)
        for i in twice.tolist():
            index.of_image[i] = -1
        what = "annotations whose id has been used before"
        index.problems.append(Problem(what, str(path), found=len(twice), fatal=False))


def _records(path: Path, index: _Index, names: dict[Any, str]) -> Iterator[Record]:
    of_image = np.frombuffer(index.of_image, np.int64)
    order = np.argsort(of_image, kind="stable")
    bounds = np.searchsorted(of_image[order], np.arange(len(index.images) + 1))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for row, (key, name, size, tags) in enumerate(index.images):
            record = Record(name, size, file=str(path), part=f"image {key}")
            for tag in tags:
                with record.listing():
                    record.tags.append(_label(names, tag))
            spans = order[bounds[row] : bounds[row + 1]].tolist()
            found = [json.loads(text[index.starts[i] : index.ends[i]]) for i in spans]
            for annotation in sorted(found, key=_extent):
                with record.listing():
                    _add(record, annotation, names)
            yield record


def _extent(annotation: dict[str, Any]) -> float:
    """Larger ones come first, so that what lies on them stays visible."""
    area = annotation.get("area")
    usable = isinstance(area, int | float) and area == area
    return -float(area) if usable and abs(area) < 1e300 else 0.0  # type: ignore[arg-type]


def _label(names: dict[Any, str], category: Any) -> str:
    if not isinstance(category, _ID) or category not in names:
        rule = "one of the file's categories"
        raise InputError("category that is not declared", found=category, rule=rule)
    return names[category]


def _add(record: Record, annotation: dict[str, Any], names: dict[Any, str]) -> None:
    label = _label(names, annotation.get("category_id"))
    segmentation, box = annotation.get("segmentation"), annotation.get("bbox")
    keypoints = annotation.get("keypoints")
    if segmentation:
        # Other labels of the annotation count even when this one is damaged.
        with record.listing():
            record.regions += _regions(label, segmentation)
    # The box of a crowd is not around one object, that of a mask's component no label.
    if box and not annotation.get("iscrowd") and annotation.get("source") != "mask":
        with record.listing():
            record.boxes.append(_box(label, box))
    if keypoints:
        with record.listing():
            record.points += _points(record, label, keypoints)
    if not segmentation and not box and not keypoints:
        record.tags.append(label)


def _box(label: str, box: Any) -> Box:
    rule = "[x, y, width, height]"
    if not isinstance(box, list) or len(box) != 4:
        raise InputError("bbox", found=box, rule=rule)
    x, y, width, height = (check_number("bbox", v) for v in box)
    if width <= 0 or height <= 0:
        raise InputError("bbox without area", found=box, rule=rule)
    return Box(label, (x, y, x + width, y + height))


def _points(record: Record, label: str, keypoints: Any) -> Iterable[Point]:
    if not isinstance(keypoints, list) or len(keypoints) % 3:
        raise InputError("keypoints", found=keypoints, rule="[x, y, visibility, ...]")
    hidden = 0
    for x, y, visibility in zip(keypoints[::3], keypoints[1::3], keypoints[2::3], strict=True):
        # 0: not labelled; 1: something else is in front of it; 2: visible.
        if visibility == 2:
            yield Point(label, (check_number("keypoint", x), check_number("keypoint", y)))
        hidden += visibility == 1
    if hidden:
        record.note("keypoints hidden behind something else", hidden)


def _regions(label: str, segmentation: Any) -> list[Region]:
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) % 2:
                raise InputError("polygon", found=polygon, rule="[x, y, x, y, x, y, ...]")
        return [
            Outline.of(label, [*zip(polygon[::2], polygon[1::2], strict=True)])
            for polygon in segmentation
        ]
    counts = member(segmentation, "counts", (list, str), "segmentation")
    size = member(segmentation, "size", list, "segmentation")
    if len(size) != 2:
        raise InputError("segmentation: size", found=size, rule="[height, width]")
    width, height = as_size("segmentation", size[1], size[0])
    counts = decompress(counts) if isinstance(counts, str) else counts
    return [Runs(label, counts, (height, width), by_columns=True, whole=True)]


def decompress(text: str) -> list[int]:
    """The run lengths in the text that pycocotools writes.

    Six bits a character, from `0` on: five of the number, the lowest first, and one that says
    whether it goes on. From the third on, a number is the difference to the one before last.

    Raises:
        InputError: other characters, or a number that is cut off.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise InputError("compressed run lengths", found=text, rule="text of pycocotools")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value = shift = 0
    if shift:
        raise InputError("compressed run lengths cut off", found=text)
    return counts


def compress(counts: Iterable[int]) -> str:
    """The inverse of `decompress`."""
    lengths = [*counts]
    characters = []
    for i, length in enumerate(lengths):
        value = length - lengths[i - 2] if i > 2 else length
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            characters.append(chr((bits | 32 if more else bits) + 48))
    return "".join(characters)


def area_and_box(inside: NDArray[np.bool_]) -> tuple[int, list[int]]:
    """Number of pixels of a map that is not empty, and [x, y, width, height] around them."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    x, y = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
    return int(inside.sum()), [x, y, width, height]

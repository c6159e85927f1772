"""LabelMe JSON: point, line, linestrip, rectangle, polygon, circle, mask; flags as tags.

After labelme's `_label_file.py` and the files that it writes (5.x and 6.x): a file for each
image. Coordinates are on the edges of pixels.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from weakseg.annotation import Box, Point, Position, Scribble
from weakseg.dataset import Entry
from weakseg.errors import InputError
from weakseg.files import write_text
from weakseg.formats.rasters import Patch
from weakseg.formats.reading import as_size, check_number, member, read_json
from weakseg.formats.records import Outline, Reading, ReadOptions, Record, tidy, to_centre
from weakseg.formats.writing import (
    WriteOptions,
    image_name,
    lose,
    mask_shapes,
    odd_width,
    polygons,
)


def read_labelme(source: Path, options: ReadOptions) -> Reading:
    """Open LabelMe files.

    Args:
        source: a JSON file, or a folder of them.
        options: `width` for lines.
    """
    paths = sorted(source.rglob("*.json")) if source.is_dir() else [source]
    if not paths:
        raise InputError("no JSON files", file=source)
    return Reading(lambda: (_record(path, options.width) for path in paths), total=len(paths))


def _record(path: Path, width: float) -> Record:
    record = Record(path.stem, file=str(path))
    with record.listing():
        data = read_json(path)
        record.image = member(data, "imagePath", str, "LabelMe file")
        if data.get("imageWidth") is not None:
            record.size = as_size("image", data["imageWidth"], data.get("imageHeight"))
        flags = data.get("flags") or {}
        if isinstance(flags, Mapping):
            record.tags += [str(name) for name, value in flags.items() if value is True]
        for shape in member(data, "shapes", list, "LabelMe file"):
            with record.listing():
                _add(record, shape, width)
    return record


def _add(record: Record, shape: Any, width: float) -> None:
    label = member(shape, "label", str, "shape")
    # Early versions only had polygons, and did not say so.
    kind = shape.get("shape_type") or "polygon"
    points = [_position(point) for point in member(shape, "points", list, f"{kind} {label}")]
    if kind in ("line", "linestrip"):
        record.scribbles.append(Scribble(label, _centres(points), width))
    elif kind in ("point", "points"):
        record.points += [Point(label, xy) for xy in _centres(points)]
    elif kind == "polygon":
        record.regions.append(Outline.of(label, points))
    elif kind not in ("rectangle", "circle", "mask"):
        record.note("shape of a kind that is not read", kind)
    elif len(points) != 2:
        raise InputError(f"{kind} of {len(points)} positions", found=points, rule="two positions")
    elif kind == "rectangle":
        (xa, ya), (xb, yb) = points
        record.boxes.append(Box(label, (min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))))
    elif kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        around = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        ring = np.stack([x + radius * np.cos(around), y + radius * np.sin(around)], axis=1)
        record.regions.append(Outline.of(label, ring))
    else:
        corner = round(points[0][0]), round(points[0][1])
        record.regions.append(Picture(label, member(shape, "mask", str, "mask"), corner))


@dataclass(frozen=True)
class Picture:
    """A mask of a part of an image, decoded when it is drawn.

    Args:
        label: the class.
        data: a PNG in base64; pixels that are not 0 belong to it.
        corner: (x, y) of its upper left pixel.
    """

    label: str
    data: str
    corner: tuple[int, int]

    def draw(self, size: tuple[int, int]) -> Patch:
        """The pixels in an image of `size` = (H, W)."""
        try:
            with Image.open(io.BytesIO(base64.b64decode(self.data, validate=True))) as image:
                # A small file may claim to be huge.
                if image.width > size[1] or image.height > size[0]:
                    found, rule = f"{image.width} x {image.height}", f"in {size[1]} x {size[0]}"
                    raise InputError("mask larger than the image", found=found, rule=rule)
                inside = np.asarray(image.convert("L")) > 0
        except InputError:
            raise
        except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError("mask", found=str(error), rule="a PNG in base64") from error
        x, y = self.corner
        left, top = max(-x, 0), max(-y, 0)
        inside = inside[top : max(size[0] - y, 0), left : max(size[1] - x, 0)]
        return Patch((x + left, y + top), inside)


def _position(point: Any) -> Position:
    if not isinstance(point, list) or len(point) != 2:
        raise InputError("position", found=point, rule="[x, y]")
    return check_number("coordinate", point[0]), check_number("coordinate", point[1])


def _centres(points: Iterable[Position]) -> tuple[Position, ...]:
    return tuple((to_centre(x), to_centre(y)) for x, y in points)


def write_labelme(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a JSON file for each image; components of masks become polygons.

    Images are named by their path as seen from the file, so that LabelMe finds them.
    """
    for entry in entries:
        path = out / f"{entry.name}.json"
        name = options.prefix + image_name(entry, options)
        if not options.prefix and isinstance(entry.image, Path):
            name = Path(os.path.relpath(entry.image.resolve(), path.parent.resolve())).as_posix()
        data = {
            "version": "5.5.0",
            "flags": dict.fromkeys(entry.annotation.tags, True),
            "shapes": [*_shapes(entry, options)],
            "imagePath": name,
            "imageData": None,
            "imageHeight": entry.height,
            "imageWidth": entry.width,
        }
        write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _shapes(entry: Entry, options: WriteOptions) -> Iterator[dict[str, Any]]:
    annotation = entry.annotation
    for label, patch in mask_shapes(entry, options):
        yield _shape(label, "polygon", polygons(patch, options).tolist())
    for box in annotation.boxes:
        x0, y0, x1, y1 = box.xyxy
        yield _shape(box.label, "rectangle", [(x0, y0), (x1, y1)])
    for point in annotation.points:
        yield _shape(point.label, "point", _edges([point.xy]))
    for scribble in annotation.scribbles:
        odd_width(scribble, entry, options)
        yield _shape(scribble.label, "linestrip", _edges(scribble.xy))
    for area in annotation.ignore:
        if options.ignore_label is None:
            lose(entry, options, "ignore")
            return
        if area.xyxy is not None:
            x0, y0, x1, y1 = area.xyxy
            yield _shape(options.ignore_label, "rectangle", [(x0, y0), (x1, y1)])
        else:
            yield _shape(options.ignore_label, "polygon", _edges(area.xy or ()))


def _edges(xy: Iterable[Position]) -> list[Position]:
    return [(x + 0.5, y + 0.5) for x, y in xy]


def _shape(label: str, kind: str, points: Iterable[Iterable[float]]) -> dict[str, Any]:
    return {
        "label": label,
        "points": [[tidy(v) for v in point] for point in points],
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }

"""CVAT for images 1.1 XML: tag, box, points, polyline, polygon, mask (and ellipse).

After CVAT's "XML annotation format" page, version 1.1. Coordinates are on the edges of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from weakseg.annotation import Box, Point, Scribble
from weakseg.dataset import Entry
from weakseg.errors import InputError
from weakseg.files import atomic_path
from weakseg.formats.rasters import run_lengths, turned
from weakseg.formats.reading import as_number, as_size, xml_elements
from weakseg.formats.records import (
    Outline,
    Reading,
    ReadOptions,
    Record,
    Runs,
    SourceClass,
    parse_colour,
    split_name,
    tidy,
    to_centre,
)
from weakseg.formats.writing import WriteOptions, image_name, lose, mask_shapes, odd_width, xml_text
from weakseg.images import palette


def read_cvat(source: Path, options: ReadOptions) -> Reading:
    """Open a CVAT file.

    Args:
        source: the XML file, or a folder with `annotations.xml`.
        options: `width` for polylines.

    Raises:
        InputError: not such a file, or one of a video.
    """
    path = source / "annotations.xml" if source.is_dir() else source
    classes: list[SourceClass] = []
    total = None
    for element in xml_elements(path, "annotations", ("meta", "image", "track")):
        if element.tag == "track":
            rule = "an export as CVAT for images 1.1"
            raise InputError("tracks of a video", file=path, rule=rule)
        if element.tag == "image":
            break
        classes += [
            SourceClass(name, colour=parse_colour(label.findtext("color")))
            for label in element.iter("label")
            if (name := (label.findtext("name") or "").strip())
        ]
        size = element.findtext("*/size") or ""
        total = int(size) if size.isdecimal() and len(size) < 10 else None
    return Reading(lambda: _records(path, options.width), classes, total=total)


def _records(path: Path, width: float) -> Iterator[Record]:
    for element in xml_elements(path, "annotations", ("image",)):
        record = Record(element.get("name") or "", file=str(path))
        record.split = split_name(element.get("subset"))
        with record.listing():
            if "width" in element.attrib or "height" in element.attrib:
                record.size = as_size("image", element.get("width"), element.get("height"))
            # The shape with the higher z_order lies on top; of equals, the later one.
            for shape in sorted(element, key=_order):
                with record.listing():
                    _add(record, shape, width)
        yield record


def _order(shape: Element) -> float:
    try:
        order = float(shape.get("z_order", "0"))
    except ValueError:
        return 0.0
    return order if math.isfinite(order) else 0.0


def _add(record: Record, shape: Element, width: float) -> None:
    if shape.tag not in _SHAPES:
        record.note("shape of a kind that is not read", shape.tag, ", ".join(_SHAPES))
        return
    label = shape.get("label")
    if not label:
        raise InputError(f"{shape.tag} without a label", found=shape.attrib)
    _SHAPES[shape.tag](record, shape, label, width)


def _add_tag(record: Record, shape: Element, label: str, width: float) -> None:
    record.tags.append(label)


def _add_box(record: Record, shape: Element, label: str, width: float) -> None:
    x0, y0, x1, y1 = (as_number(f"box: {key}", shape.get(key)) for key in _CORNERS)
    angle = as_number("box: rotation", shape.get("rotation", "0"))
    if angle:
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        corner = turned(np.array(corners), ((x0 + x1) / 2, (y0 + y1) / 2), angle)
        (x0, y0), (x1, y1) = corner.min(0).tolist(), corner.max(0).tolist()
        record.note("turned box; read as the upright box around it", f"{angle} degrees")
    record.boxes.append(Box(label, (x0, y0, x1, y1)))


def _add_points(record: Record, shape: Element, label: str, width: float) -> None:
    record.points += [Point(label, xy) for xy in _centres(shape)]


def _add_polyline(record: Record, shape: Element, label: str, width: float) -> None:
    record.scribbles.append(Scribble(label, tuple(_centres(shape)), width))


def _add_polygon(record: Record, shape: Element, label: str, width: float) -> None:
    record.regions.append(Outline.of(label, _positions(shape)))


def _add_ellipse(record: Record, shape: Element, label: str, width: float) -> None:
    cx, cy, rx, ry = (as_number(f"ellipse: {key}", shape.get(key)) for key in _ELLIPSE)
    angle = as_number("ellipse: rotation", shape.get("rotation", "0"))
    around = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ring = np.stack([cx + rx * np.cos(around), cy + ry * np.sin(around)], axis=1)
    record.regions.append(Outline.of(label, turned(ring, (cx, cy), angle)))


def _add_mask(record: Record, shape: Element, label: str, width: float) -> None:
    keys = ("left", "top", "width", "height")
    numbers = [as_number(f"mask: {key}", shape.get(key)) for key in keys]
    if not all(n.is_integer() and abs(n) < 1e7 for n in numbers):
        raise InputError("mask", found=numbers, rule="whole numbers")
    left, top, w, h = (int(n) for n in numbers)
    try:
        counts = [int(count) for count in (shape.get("rle") or "").split(",")]
    except ValueError as error:
        raise InputError("mask: rle", found=shape.get("rle"), rule="numbers") from error
    record.regions.append(Runs(label, counts, (h, w), (left, top)))


_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_ELLIPSE = ("cx", "cy", "rx", "ry")
_SHAPES: dict[str, Callable[[Record, Element, str, float], None]] = {
    "tag": _add_tag,
    "box": _add_box,
    "points": _add_points,
    "polyline": _add_polyline,
    "polygon": _add_polygon,
    "ellipse": _add_ellipse,
    "mask": _add_mask,
}


def _positions(shape: Element) -> list[tuple[float, float]]:
    found = []
    for pair in (shape.get("points") or "").split(";"):
        x, _, y = pair.partition(",")
        found.append((as_number(f"{shape.tag}: points", x), as_number(f"{shape.tag}: points", y)))
    return found


def _centres(shape: Element) -> list[tuple[float, float]]:
    return [(to_centre(x), to_centre(y)) for x, y in _positions(shape)]


def write_cvat(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a CVAT for images 1.1 file; components of masks become `mask` shapes."""
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        file.write("  <version>1.1</version>\n" + _meta(options))
        for index, entry in enumerate(entries):
            name = options.prefix + image_name(entry, options)
            file.write(
                f'  <image id="{index}" name={_quoted(name)} subset={_quoted(entry.split)} '
                f'width="{entry.width}" height="{entry.height}">\n'
            )
            file.writelines(f"    <{shape}/>\n" for shape in _shapes(entry, options))
            file.write("  </image>\n")
        file.write("</annotations>\n")


def _meta(options: WriteOptions) -> str:
    labels = ""
    for name, colour in zip(options.info.classes, palette(255)[1:], strict=False):
        labels += f"        <label><name>{escape(xml_text(name))}</name>"
        labels += "<color>#{:02x}{:02x}{:02x}</color>".format(*colour)
        labels += "<type>any</type><attributes></attributes></label>\n"
    return (
        f"  <meta>\n    <task>\n      <name>{escape(xml_text(options.info.name))}</name>\n"
        f"      <size>{options.total}</size>\n      <mode>annotation</mode>\n"
        f"      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
    )


def _shapes(entry: Entry, options: WriteOptions) -> Iterator[str]:
    annotation = entry.annotation
    for tag in annotation.tags:
        yield f'tag label={_quoted(tag)} source="manual"'
    # The mask lies below, so that marks on it can be taken hold of.
    for label, patch in mask_shapes(entry, options):
        runs = ", ".join(map(str, run_lengths(patch.inside)))
        height, width = patch.inside.shape
        yield (
            f'mask label={_quoted(label)} source="manual" occluded="0" rle="{runs}" '
            f'left="{patch.corner[0]}" top="{patch.corner[1]}" width="{width}" height="{height}" '
            'z_order="0"'
        )
    for box in annotation.boxes:
        yield _box(box.label, box.xyxy)
    for point in annotation.points:
        yield _line("points", point.label, [point.xy])
    for scribble in annotation.scribbles:
        yield _line("polyline", scribble.label, scribble.xy)
        odd_width(scribble, entry, options)
    for area in annotation.ignore:
        if options.ignore_label is None:
            lose(entry, options, "ignore")
            return
        if area.xyxy is not None:
            yield _box(options.ignore_label, area.xyxy)
        else:
            yield _line("polygon", options.ignore_label, area.xy or ())


def _box(label: str, xyxy: Iterable[float]) -> str:
    corners = " ".join(f'{key}="{tidy(v)}"' for key, v in zip(_CORNERS, xyxy, strict=True))
    return f'box label={_quoted(label)} source="manual" occluded="0" {corners} z_order="1"'


def _line(kind: str, label: str, xy: Iterable[tuple[float, float]]) -> str:
    points = ";".join(f"{tidy(x + 0.5)},{tidy(y + 0.5)}" for x, y in xy)
    start = f'{kind} label={_quoted(label)} source="manual" occluded="0"'
    return f'{start} points="{points}" z_order="1"'


def _quoted(text: str) -> str:
    return quoteattr(xml_text(text))

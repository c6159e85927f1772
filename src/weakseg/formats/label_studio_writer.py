"""Writing Label Studio pre-annotations, with the labelling interface that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from weakseg.annotation import Area
from weakseg.dataset import Entry
from weakseg.files import atomic_path, write_text
from weakseg.formats.brush_rle import pack_mask
from weakseg.formats.writing import (
    WriteOptions,
    image_name,
    lose,
    mask_classes,
    odd_width,
    xml_text,
)
from weakseg.images import palette

_CONTROLS = {
    "tags": ("Choices", "choices"),
    "masks": ("BrushLabels", "brushlabels"),
    "boxes": ("RectangleLabels", "rectanglelabels"),
    "points": ("KeyPointLabels", "keypointlabels"),
    "scribbles": ("VectorLabels", "vectorlabels"),
    "areas": ("PolygonLabels", "polygonlabels"),
}
"""Tag and type of result of each kind of label; the kind is the control's name."""


def write_label_studio(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write tasks with predictions to `out`, and the interface to the same name with `.xml`."""
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for index, entry in enumerate(entries):
            name = image_name(entry, options)
            link = options.prefix + (quote(name) if options.prefix else name)
            prediction = {"model_version": "weakseg", "result": [*_results(entry, options)]}
            task = {"data": {"image": link, "split": entry.split}, "predictions": [prediction]}
            file.write((",\n" if index else "\n") + json.dumps(task, ensure_ascii=False))
        file.write("\n]\n")
    write_text(out.with_suffix(".xml"), _interface(options))


def _interface(options: WriteOptions) -> str:
    colours = palette(256)[1:].tolist()
    extra = [] if options.ignore_label is None else [options.ignore_label]
    lines = ["<View>", '  <Image name="image" value="$image"/>']
    for name, (tag, _) in _CONTROLS.items():
        choice = ' choice="multiple"' if tag == "Choices" else ""
        lines.append(f'  <{tag} name="{name}" toName="image"{choice}>')
        if tag == "Choices":
            values = [quoteattr(xml_text(label)) for label in options.info.classes]
            lines += [f"    <Choice value={value}/>" for value in values]
        else:
            for label, (r, g, b) in zip([*options.info.classes, *extra], colours, strict=False):
                value = quoteattr(xml_text(label))
                lines.append(f'    <Label value={value} background="#{r:02x}{g:02x}{b:02x}"/>')
        lines.append(f"  </{tag}>")
    return "\n".join([*lines, "</View>\n"])


def _results(entry: Entry, options: WriteOptions) -> Iterator[dict[str, Any]]:
    for index, (kind, label, value) in enumerate(_values(entry, options)):
        _, type_ = _CONTROLS[kind]
        result: dict[str, Any] = {
            "id": f"w{index}",
            "type": type_,
            "from_name": kind,
            "to_name": "image",
            "value": {**value, type_: label if kind == "tags" else [label]},
        }
        if kind != "tags":
            size = {"original_width": entry.width, "original_height": entry.height}
            result |= {**size, "image_rotation": 0}
        yield result


def _values(entry: Entry, options: WriteOptions) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Kind of label, class (for tags: all of them), and value of each result."""
    annotation, size = entry.annotation, (entry.width, entry.height)
    if annotation.tags:
        yield "tags", [*annotation.tags], {}
    for label, inside in mask_classes(entry, options):
        yield "masks", label, {"format": "rle", "rle": [*pack_mask(inside)]}
    for box in annotation.boxes:
        yield "boxes", box.label, _rectangle(box.xyxy, size)
    for point in annotation.points:
        x, y = _percent(point.xy, size)
        yield "points", point.label, {"x": x, "y": y, "width": 0.5}
    for scribble in annotation.scribbles:
        odd_width(scribble, entry, options)
        corners = [_percent(xy, size) for xy in scribble.xy]
        vertices = [
            {
                "id": f"v{i}",
                "x": x,
                "y": y,
                "prevPointId": f"v{i - 1}" if i else None,
                "isBezier": False,
            }
            for i, (x, y) in enumerate(corners)
        ]
        yield "scribbles", scribble.label, {"vertices": vertices, "closed": False}
    for area in annotation.ignore:
        if options.ignore_label is None:
            lose(entry, options, "ignore")
            return
        yield _area(area, options.ignore_label, size)


def _area(area: Area, label: str, size: tuple[int, int]) -> tuple[str, str, dict[str, Any]]:
    if area.xyxy is not None:
        return "boxes", label, _rectangle(area.xyxy, size)
    points = [[*_percent(xy, size)] for xy in area.xy or ()]
    return "areas", label, {"points": points, "closed": True}


def _rectangle(xyxy: tuple[float, ...], size: tuple[int, int]) -> dict[str, float]:
    x0, y0, x1, y1 = xyxy
    return {
        "x": x0 * 100 / size[0],
        "y": y0 * 100 / size[1],
        "width": (x1 - x0) * 100 / size[0],
        "height": (y1 - y0) * 100 / size[1],
        "rotation": 0,
    }


def _percent(xy: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    return (xy[0] + 0.5) * 100 / size[0], (xy[1] + 0.5) * 100 / size[1]

"""Label Studio JSON: choices, rectangle, keypoint, brush, polygon, vector (and ellipse).

After the tag pages of labelstud.io (`RectangleLabels`, `VectorLabels`, ...) and exports of the
full JSON kind. Coordinates are percentages of the image, measured on the edges of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from weakseg.annotation import Box, Point, Scribble
from weakseg.errors import InputError
from weakseg.formats.brush_rle import Brush
from weakseg.formats.image_index import clean_reference
from weakseg.formats.rasters import turned
from weakseg.formats.reading import as_size, check_number, json_items, member
from weakseg.formats.records import Outline, Reading, ReadOptions, Record, split_name, to_centre
from weakseg.images import IMAGE_SUFFIXES


def read_label_studio(source: Path, options: ReadOptions) -> Reading:
    """Open a Label Studio export.

    Args:
        source: the JSON file (an array of tasks), or a folder with a single one.
        options: `width` for lines, `predictions`.

    Raises:
        InputError: not such a file.
    """
    path = source
    if source.is_dir():
        found = sorted(source.glob("*.json"))
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise InputError("one JSON file is needed", file=source, found=names)
        path = found[0]
    return Reading(lambda: _records(path, options))


def _records(path: Path, options: ReadOptions) -> Iterator[Record]:
    for number, item in enumerate(json_items(path), 1):
        task = item.value
        if item.key or not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
            minimal = isinstance(task, Mapping) and "annotation_id" in task
            what = "JSON-MIN export, which leaves too much out" if minimal else "not a task"
            rule = "an export as JSON: an array of tasks with data and annotations"
            raise InputError(what, file=path, found=task, rule=rule)
        name = f"task {task.get('id', number)}"
        record = Record(name, file=str(path))
        with record.listing():
            record.image = _image(task)
            record.part = name
            record.split = split_name(_text(task["data"].get("split")))
            _add_results(record, _results(record, task, options.predictions), options.width)
        yield record


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _image(task: Mapping[str, Any]) -> str:
    """The reference to the picture: `data.image`, or whatever in `data` looks like one."""
    data = task["data"]
    if isinstance(data.get("image"), str):
        return str(data["image"])
    texts = [value for value in data.values() if isinstance(value, str)]
    found = [t for t in texts if PurePosixPath(clean_reference(t)).suffix.lower() in IMAGE_SUFFIXES]
    if len(found) != 1:
        raise InputError("task without one image", found=dict(data), rule='"data": {"image": ...}')
    return found[0]


def _results(record: Record, task: Mapping[str, Any], predictions: bool) -> list[Any]:
    """The results of the annotation that counts: the ground truth, else the latest."""
    given = task.get("annotations", task.get("completions")) or []
    if not isinstance(given, list):
        raise InputError("annotations", found=given, rule="a list")
    found = [a for a in given if isinstance(a, Mapping) and not a.get("was_cancelled")]
    found.sort(key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")))
    if not found and (guesses := task.get("predictions")) and isinstance(guesses, list):
        if predictions:
            found = [guesses[-1]]
        elif any(isinstance(guess, Mapping) for guess in guesses):
            record.note("predictions left out (--predictions takes them)")
    if len(found) > 1:
        record.note("other annotators' labels of this image", len(found) - 1, "one annotation")
    return member(found[-1], "result", list, "annotation") if found else []


def _add_results(record: Record, results: list[Any], width: float) -> None:
    labelled = {
        result.get("id") for result in results if isinstance(result, Mapping) and _labels(result)
    }
    for result in results:
        with record.listing():
            value = member(result, "value", dict, "result")
            labels = _labels(result)
            if "choices" in value:
                record.tags += labels
                continue
            kind = _kind(value)
            if kind is None:
                record.note("result of a kind that is not read", result.get("type"))
            elif labels:
                _add(record, result, kind, labels, width)
            # A shape and its label may come as two results of one id.
            elif result.get("id") not in labelled:
                raise InputError(f"{kind} without a label", found=value)


def _labels(result: Mapping[str, Any]) -> list[str]:
    value = result.get("value")
    if not isinstance(value, Mapping):
        return []
    for key in (result.get("type"), "labels", "choices"):
        labels = value.get(key) if isinstance(key, str) else None
        if isinstance(labels, list) and labels and all(isinstance(v, str) and v for v in labels):
            return labels
    return []


def _kind(value: Mapping[str, Any]) -> str | None:
    for key, kind in (("rle", "brush"), ("points", "polygon"), ("vertices", "vector")):
        if key in value:
            return kind
    if "radiusX" in value:
        return "ellipse"
    if "height" in value:
        return "rectangle"
    return "keypoint" if "x" in value and "y" in value else None


def _add(
    record: Record, result: Mapping[str, Any], kind: str, labels: list[str], width: float
) -> None:
    size = as_size(kind, result.get("original_width"), result.get("original_height"))
    if record.size is not None and record.size != size:
        raise InputError("two sizes of one image", found=size, rule=str(record.size))
    record.size = size
    if result.get("image_rotation"):
        found = result["image_rotation"]
        raise InputError("image turned in the tool", found=found, rule="image_rotation 0")
    if len(labels) > 1:
        record.note("label beside the first of a shape", ", ".join(labels[1:]), "one label")
    _SHAPES[kind](record, labels[0], _Percent(result["value"], size), width)


class _Percent:
    """A result's numbers, in pixels."""

    def __init__(self, value: Mapping[str, Any], size: tuple[int, int]) -> None:
        self.value = value
        self.size = size

    def x(self, key: str = "x") -> float:
        return self._pixels(self.value.get(key), self.size[0])

    def y(self, key: str = "y") -> float:
        return self._pixels(self.value.get(key), self.size[1])

    def number(self, key: str) -> float:
        return check_number(key, self.value.get(key) or 0)

    def positions(self, key: str) -> list[tuple[float, float]]:
        positions = []
        for item in member(self.value, key, list, "shape"):
            pair = [item.get("x"), item.get("y")] if isinstance(item, Mapping) else item
            if not isinstance(pair, list) or len(pair) != 2:
                raise InputError("position", found=item, rule="[x, y] in percent")
            x, y = (self._pixels(v, n) for v, n in zip(pair, self.size, strict=True))
            positions.append((x, y))
        return positions

    def _pixels(self, value: Any, length: int) -> float:
        return check_number("coordinate", value) * length / 100


def _add_rectangle(record: Record, label: str, value: _Percent, width: float) -> None:
    x, y, w, h = value.x(), value.y(), value.x("width"), value.y("height")
    corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])
    if angle := value.number("rotation"):
        corners = turned(corners, (x, y), angle)
        record.note("turned box; read as the upright box around it", f"{angle} degrees")
    record.boxes.append(Box(label, (*corners.min(0).tolist(), *corners.max(0).tolist())))


def _add_ellipse(record: Record, label: str, value: _Percent, width: float) -> None:
    centre = (value.x(), value.y())
    around = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radii = np.array([value.x("radiusX"), value.y("radiusY")])
    ring = centre + radii * np.stack([np.cos(around), np.sin(around)], axis=1)
    record.regions.append(Outline.of(label, turned(ring, centre, value.number("rotation"))))


def _add_keypoint(record: Record, label: str, value: _Percent, width: float) -> None:
    record.points.append(Point(label, (to_centre(value.x()), to_centre(value.y()))))


def _add_polygon(record: Record, label: str, value: _Percent, width: float) -> None:
    _add_line(record, label, value, "points", value.value.get("closed", True), width)


def _add_vector(record: Record, label: str, value: _Percent, width: float) -> None:
    vertices = value.value["vertices"]
    if isinstance(vertices, list) and any(
        isinstance(v, Mapping) and v.get("isBezier") for v in vertices
    ):
        record.note("curve; read as straight pieces between its vertices", label)
    _add_line(record, label, value, "vertices", value.value.get("closed", False), width)


def _add_line(
    record: Record, label: str, value: _Percent, key: str, closed: object, width: float
) -> None:
    positions = value.positions(key)
    if closed:
        record.regions.append(Outline.of(label, positions))
    else:
        xy = tuple((to_centre(x), to_centre(y)) for x, y in positions)
        record.scribbles.append(Scribble(label, xy, width))


def _add_brush(record: Record, label: str, value: _Percent, width: float) -> None:
    data = member(value.value, "rle", list, "brush")
    try:
        record.regions.append(Brush(label, bytes(data)))
    except (TypeError, ValueError) as error:
        raise InputError("brush: rle", found=data, rule="numbers in 0..255") from error


_SHAPES: dict[str, Callable[[Record, str, _Percent, float], None]] = {
    "rectangle": _add_rectangle,
    "ellipse": _add_ellipse,
    "keypoint": _add_keypoint,
    "polygon": _add_polygon,
    "vector": _add_vector,
    "brush": _add_brush,
}

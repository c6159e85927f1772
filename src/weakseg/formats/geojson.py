"""GeoJSON in pixel coordinates: points, lines and polygons, as QuPath writes them.

After RFC 7946 and QuPath's export: features whose `properties.classification.name` is the class,
or since 0.4 `names`, the parts of it (`label`, `class`, `category` and `name` serve, too).
Coordinates are on the edges of pixels.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from weakseg.annotation import Point, Position, Scribble
from weakseg.dataset import Entry
from weakseg.errors import InputError
from weakseg.files import write_text
from weakseg.formats.rasters import outline
from weakseg.formats.reading import check_number, member, read_json
from weakseg.formats.records import (
    IGNORE,
    Outline,
    Reading,
    ReadOptions,
    Record,
    SourceClass,
    tidy,
    to_centre,
)
from weakseg.formats.writing import WriteOptions, image_name, lose, mask_shapes, odd_width
from weakseg.images import IMAGE_SUFFIXES, palette

_LABELS = ("label", "class", "category", "name")
_IMAGES = ("image", "filename", "file_name")
_ENDING = re.compile(r"(\.geojson|\.json)+$", re.IGNORECASE)
_IGNORED = SourceClass(IGNORE, "Ignore*")  # QuPath's own name, by which a map may still call it


def read_geojson(source: Path, options: ReadOptions) -> Reading:
    """Open GeoJSON files.

    An image is named by a feature's or the collection's `image`, else by the path of the file in
    the folder, with or without the image's own suffix.

    Args:
        source: a file, or a folder of files that end in `.geojson` or `.json`.
        options: `width` of lines.
    """
    paths = [source]
    if source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".geojson", ".json"))
    if not paths:
        raise InputError("no GeoJSON files", file=source)
    folder = source if source.is_dir() else source.parent

    def records() -> Iterator[Record]:
        for path in paths:
            yield from _records(path, _image_of(path.relative_to(folder)), options.width)

    return Reading(records, [_IGNORED])


def _image_of(path: Path) -> str:
    """The image that a file is called after: `a` of `a.geojson`, `a.tif` of `a.tif.geojson`."""
    name = _ENDING.sub("", path.as_posix())
    return name if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES else f"{name}.jpg"


def _records(path: Path, image: str, width: float) -> Iterator[Record]:
    whole = Record(image, file=str(path))
    records: dict[str, Record] = {}
    with whole.listing():
        data = read_json(path)
        if isinstance(data, Mapping) and isinstance(data.get("image"), str):
            whole.image = data["image"]
        records = {whole.image: whole}
        for feature, image, part in _with_children(_features(data), whole.image):
            with whole.listing(part=part):
                properties = _properties(feature)
                record = records.setdefault(image, Record(image, file=str(path)))
                with record.listing(part=part):
                    _add(record, feature, _label(properties), width)
    empty = not (whole.labels() or whole.problems) and len(records) > 1
    yield from (record for record in records.values() if not (record is whole and empty))
    if not records:
        yield whole


def _features(data: Any) -> list[Any]:
    if isinstance(data, list):
        return data
    if isinstance(data, Mapping) and data.get("type") == "Feature":
        return [data]
    return member(data, "features", list, "GeoJSON")  # type: ignore[no-any-return]


def _with_children(features: list[Any], image: str) -> Iterator[tuple[Any, str, str]]:
    """Features and those within them, each with its image and its place for messages.

    Children come after their parent, so that they lie on top of it.
    """
    waiting = [(enumerate(features, 1), image, "feature")]
    while waiting:
        siblings, image, kind = waiting[-1]
        number, feature = next(siblings, (0, None))
        if number == 0:
            waiting.pop()
            continue
        properties = feature.get("properties") if isinstance(feature, Mapping) else None
        properties = properties if isinstance(properties, Mapping) else {}
        image = next((str(properties[k]) for k in _IMAGES if k in properties), image)
        yield feature, image, f"{kind} {number}{_id(feature)}"
        children = properties.get("childObjects")
        if isinstance(children, list):
            waiting.append((enumerate(children, 1), image, f"{kind} {number}, child"))


def _id(feature: Any) -> str:
    """A feature's id, by which QuPath's user finds it."""
    value = feature.get("id") if isinstance(feature, Mapping) else None
    usable = isinstance(value, str | int) and len(str(value)) <= 64
    return f" ({value})" if usable else ""


def _properties(feature: Any) -> Mapping[str, Any]:
    if not isinstance(feature, Mapping):
        raise InputError("feature is not an object", found=feature)
    properties = feature.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _label(properties: Mapping[str, Any]) -> str:
    found = [_classification(properties.get("classification"))]
    # An object of QuPath has a name of its own, whatever its class.
    named = "objectType" in properties
    found += [properties.get(key) for key in _LABELS if not (named and key == "name")]
    label = next((value for value in found if isinstance(value, str) and value), None)
    if label is None:
        rule = '"properties": {"classification": {"name": ...}}'
        own = {key: value for key, value in properties.items() if key != "childObjects"}
        raise InputError("feature without a class", found=own, rule=rule)
    return _IGNORED.name if label == _IGNORED.id else label


def _classification(value: Any) -> Any:
    """The class that QuPath shows: of a class derived from another one, both names."""
    if not isinstance(value, Mapping):
        return value
    names = value.get("names")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return ": ".join(names)
    return value.get("name")


def _add(record: Record, feature: Mapping[str, Any], label: str, width: float) -> None:
    geometry = member(feature, "geometry", dict, "feature")
    kind = member(geometry, "type", str, "geometry")
    if kind.removeprefix("Multi") not in ("Point", "LineString", "Polygon"):
        record.note("geometry of a kind that is not read", kind)
        return
    values = member(geometry, "coordinates", list, kind)
    several = values if kind.startswith("Multi") else [values]
    for value in several:
        if kind in ("Point", "MultiPoint"):
            record.points.append(Point(label, _centre(value)))
        elif kind in ("LineString", "MultiLineString"):
            xy = tuple(_centre(v) for v in _list(kind, value))
            record.scribbles.append(Scribble(label, xy, width))
        else:
            rings = [[_position(v) for v in _list(kind, ring)] for ring in _list(kind, value)]
            # Rings are closed: the last position is the first one again.
            rings = [ring[:-1] if ring[:1] == ring[-1:] else ring for ring in rings]
            if not rings:
                raise InputError("polygon without positions", found=value)
            record.regions.append(Outline.of(label, *rings))


def _list(kind: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(kind, found=value, rule="a list of positions")
    return value


def _position(value: Any) -> Position:
    if not isinstance(value, list) or len(value) < 2:
        raise InputError("position", found=value, rule="[x, y]")
    return check_number("coordinate", value[0]), check_number("coordinate", value[1])


def _centre(value: Any) -> Position:
    x, y = _position(value)
    return to_centre(x), to_centre(y)


def write_geojson(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a file for each image, as QuPath reads it."""
    for entry in entries:
        lose(entry, options, "tags", "boxes")
        features = [*_written(entry, options)]
        name = options.prefix + image_name(entry, options)
        data = {"type": "FeatureCollection", "image": name, "features": features}
        write_text(out / f"{entry.name}.geojson", json.dumps(data, ensure_ascii=False) + "\n")


def _written(entry: Entry, options: WriteOptions) -> Iterator[dict[str, Any]]:
    for label, patch in mask_shapes(entry, options):
        rings = [_ring(ring.tolist()) for ring in outline(patch, options.tolerance)]
        yield _feature(label, "Polygon", rings, options)
    for point in entry.annotation.points:
        yield _feature(point.label, "Point", _edges([point.xy])[0], options)
    for scribble in entry.annotation.scribbles:
        odd_width(scribble, entry, options)
        yield _feature(scribble.label, "LineString", _edges(scribble.xy), options)
    for area in entry.annotation.ignore:
        if options.ignore_label is None:
            lose(entry, options, "ignore")
            return
        if area.xyxy is not None:
            options.lost.add("boxes to ignore: written as polygons", entry.name)
            x0, y0, x1, y1 = map(math.ceil, area.xyxy)  # the pixels that it holds
            ring: list[list[float]] = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        else:
            ring = _edges(area.xy or ())
        yield _feature(options.ignore_label, "Polygon", [_ring(ring)], options)


def _edges(xy: Iterable[Position]) -> list[list[float]]:
    return [[tidy(x + 0.5), tidy(y + 0.5)] for x, y in xy]


def _ring(positions: list[list[float]]) -> list[list[float]]:
    ring = [[tidy(v) for v in position] for position in positions]
    return [*ring, ring[0]]


def _feature(label: str, kind: str, coordinates: Any, options: WriteOptions) -> dict[str, Any]:
    classes = options.info.classes
    index = classes.index(label) if label in classes else len(classes)
    colour = palette(index + 2)[index + 1].tolist()
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": label, "color": colour},
        },
    }

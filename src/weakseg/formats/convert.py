"""From a record, in the source's names and coordinates, to an annotation of the data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from weakseg.annotation import Annotation, Area, Box, Point, Position, Scribble
from weakseg.dataset_info import DatasetInfo
from weakseg.errors import InputError
from weakseg.formats.class_map import ClassMap
from weakseg.formats.rasters import components, join_holes, outline
from weakseg.formats.records import Outline, Record, Region, RowPoint, tidy

_SLACK = 1.0  # pixels that a tool's rounding may lead outside the image


@dataclass(frozen=True)
class Rules:
    """What holds for all records of an import.

    Args:
        info: the data set's classes.
        classes: what the source's names mean.
        kinds: kinds of label to keep.
        exhaustive: pixels outside all regions of an image are background, not unlabelled.
    """

    info: DatasetInfo
    classes: ClassMap
    kinds: tuple[str, ...]
    exhaustive: bool = False


def convert(record: Record, rules: Rules, size: tuple[int, int]) -> Annotation:
    """The labels of an image of `size` = (width, height); what is left out joins its problems."""
    ignored: list[Area] = []
    annotation = Annotation(
        tags=_tags(record, rules),
        boxes=tuple(_boxes(record, rules, size, ignored)),
        points=tuple(_points(record, rules, size)),
        scribbles=tuple(_scribbles(record, rules, size)),
        mask=_mask(record, rules, size, ignored) if "masks" in rules.kinds else None,
        ignore=tuple(ignored),
    )
    return annotation.restrict(rules.kinds)


def _tags(record: Record, rules: Rules) -> tuple[str, ...]:
    tags = []
    for label in record.tags:
        if rules.classes.ignores(label):
            record.note("a tag cannot mark what to ignore", label)
        elif (target := rules.classes.targets.get(label)) is not None:
            tags.append(target)
    return tuple(tags)


def _boxes(
    record: Record, rules: Rules, size: tuple[int, int], ignored: list[Area]
) -> Iterable[Box]:
    for box in record.boxes:
        target = rules.classes.targets.get(box.label)
        if target is None:
            continue
        x0, y0, x1, y1 = (tidy(v) for v in box.xyxy)
        cut = tidy(max(x0, 0)), tidy(max(y0, 0)), min(x1, size[0]), min(y1, size[1])
        if cut[0] >= cut[2] or cut[1] >= cut[3]:
            record.note("box outside the image", [*box.xyxy], f"in {size[0]} x {size[1]}")
            continue
        if max(abs(a - b) for a, b in zip(cut, (x0, y0, x1, y1), strict=True)) > _SLACK:
            record.note("box cut at the border", [*box.xyxy], f"in {size[0]} x {size[1]}")
        if rules.classes.ignores(box.label):
            ignored.append(Area(xyxy=cut))
        else:
            yield Box(target, cut)


def _points(record: Record, rules: Rules, size: tuple[int, int]) -> Iterable[Point]:
    for point in record.points:
        target = rules.classes.targets.get(point.label)
        if target is None:
            continue
        line, file = (point.line, point.file) if isinstance(point, RowPoint) else (None, None)
        if rules.classes.ignores(point.label):
            what = "a point cannot mark what to ignore"
            record.note(what, point.label, line=line, file=file)
        elif (xy := _pulled_in(point.xy, size)) is None:
            rule = f"in {size[0]} x {size[1]}"
            record.note("point outside the image", [*point.xy], rule, line, file)
        else:
            yield Point(target, xy)


def _scribbles(record: Record, rules: Rules, size: tuple[int, int]) -> Iterable[Scribble]:
    for scribble in record.scribbles:
        target = rules.classes.targets.get(scribble.label)
        if target is None:
            continue
        if rules.classes.ignores(scribble.label):
            record.note("a stroke cannot mark what to ignore", scribble.label)
            continue
        inside = [_pulled_in(xy, size) for xy in scribble.xy]
        whole = tuple(xy for xy in inside if xy is not None)
        if len(whole) == len(scribble.xy):
            yield Scribble(target, whole, scribble.width)
            continue
        pieces = cut_stroke(scribble.xy, size)
        what = "stroke cut at the border" if pieces else "stroke outside the image"
        record.note(what, [[*xy] for xy in scribble.xy[:4]], f"in {size[0]} x {size[1]}")
        yield from (Scribble(target, piece, scribble.width) for piece in pieces)


def _pulled_in(xy: Position, size: tuple[int, int]) -> Position | None:
    """A position in the image; just outside, the nearest within; further out, None."""
    found = []
    for value, length in zip(xy, size, strict=True):
        if not -_SLACK <= value <= length - 1 + _SLACK:
            return None
        found.append(value if 0 <= value < length else min(max(value, 0), length - 1))
    return found[0], found[1]


def cut_stroke(xy: Iterable[Position], size: tuple[int, int]) -> list[tuple[Position, ...]]:
    """The pieces of a polyline that lie between the centres of the image's outermost pixels."""
    positions = np.array([*xy], np.float64)
    top = np.array(size, np.float64) - 1
    pieces: list[list[Position]] = []
    connected = False
    for start, end in pairwise(positions):
        with np.errstate(divide="ignore", invalid="ignore"):
            # Shares of the way at which the segment passes the four borders.
            at = np.stack([(0 - start) / (end - start), (top - start) / (end - start)])
        still = start == end
        at[:, still] = np.where((start >= 0) & (start <= top), [[-np.inf], [np.inf]], np.nan)[
            :, still
        ]
        first, last = max(0.0, at.min(0).max()), min(1.0, at.max(0).min())
        if not first < last:
            connected = False
            continue
        a, b = start + first * (end - start), start + last * (end - start)
        if not connected or first > 0:
            pieces.append([_place(a, top)])
        pieces[-1].append(_place(b, top))
        connected = last == 1
    return [tuple(piece) for piece in pieces]


def _place(xy: NDArray[np.float64], top: NDArray[np.float64]) -> Position:
    x, y = np.clip(xy, 0, top)
    return tidy(x), tidy(y)


def _mask(
    record: Record, rules: Rules, size: tuple[int, int], ignored: list[Area]
) -> NDArray[np.uint8] | None:
    shape, info = (size[1], size[0]), rules.info
    mask = np.full(shape, info.unlabelled, np.uint8)
    if rules.exhaustive and info.background_index is not None:
        mask[:] = info.background_index
    if record.label_image is not None:
        with record.listing():
            _paint_label_image(mask, record, rules)
    for region in record.regions:
        target = rules.classes.targets.get(region.label)
        if target is None:
            continue
        with record.listing():
            if rules.classes.ignores(region.label):
                ignored += _areas(region, shape)
                continue
            patch = region.draw(shape)
            if not patch.inside.any():
                record.note("shape without a pixel in the image", region.label)
            patch.of(mask)[patch.inside] = info.index(target)
    return mask if (mask != info.unlabelled).any() else None


def _areas(region: Region, shape: tuple[int, int]) -> list[Area]:
    if isinstance(region, Outline) and len(region.rings) == 1:
        rings = [np.array(region.rings[0])]
    else:
        drawn = region.draw(shape).on(shape)
        rings = [join_holes(outline(patch)) for patch in components(drawn, True)]
    return [Area(xy=tuple((tidy(x), tidy(y)) for x, y in ring - 0.5)) for ring in rings]


def _paint_label_image(mask: NDArray[np.uint8], record: Record, rules: Rules) -> None:
    image = record.label_image
    assert image is not None
    pixels = image.read()
    if pixels.shape != mask.shape:
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        rule = f"{mask.shape[1]} x {mask.shape[0]} as the image"
        raise InputError("label image of another size", found=found, rule=rule)
    values, positions = np.unique(pixels, return_inverse=True)
    table = np.full(len(values), rules.info.unlabelled, np.uint8)
    for i, value in enumerate(int(v) for v in values):
        target = rules.classes.targets.get(image.name(value))
        if value in image.ignore:
            table[i] = rules.info.ignore
        elif value in image.unlabelled or target is None:
            continue
        elif rules.classes.ignores(image.name(value)):
            table[i] = rules.info.ignore
        else:
            table[i] = rules.info.index(target)
    painted = table[positions.reshape(pixels.shape)]
    np.copyto(mask, painted, where=painted != rules.info.unlabelled)

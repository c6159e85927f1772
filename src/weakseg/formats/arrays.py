"""Annotations out of arrays, as napari's layers and scikit-image give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from weakseg.annotation import Annotation, Box, Point, Scribble
from weakseg.errors import InputError
from weakseg.formats.records import tidy


def annotation_from_layers(
    classes: Sequence[str],
    *,
    labels: ArrayLike | None = None,
    values: Mapping[int, str] | None = None,
    points: ArrayLike | None = None,
    point_classes: Iterable[str] = (),
    paths: Iterable[ArrayLike] = (),
    path_classes: Iterable[str] = (),
    rectangles: Iterable[ArrayLike] = (),
    rectangle_classes: Iterable[str] = (),
    width: float = 3,
    tags: Iterable[str] = (),
) -> Annotation:
    """The annotation that layers of napari, or arrays of the same kind, make up.

    Coordinates are rows and columns, as in these libraries; an integer is a pixel's centre.

    Args:
        classes: of the data set, in the order of their indices.
        labels: (H, W) of integers, of a labels layer: 0 says nothing, 1 is the first class.
        values: class of each value of `labels`, where they are numbered otherwise.
        points: (N, 2) of (row, column), of a points layer.
        point_classes: class of each.
        paths: (n, 2) vertices each, shapes of type path or line.
        path_classes: class of each.
        rectangles: (4, 2) corners or (2, 2) opposite corners each.
        rectangle_classes: class of each.
        width: of the paths' strokes, pixels.
        tags: classes in the image.

    Raises:
        InputError: shapes do not fit, a class is not in the list, or a number is not usable.
    """
    clicked = np.zeros((0, 2)) if points is None else np.asarray(points, float)
    if clicked.ndim != 2 or clicked.shape[1] != 2:
        raise InputError("points", found=f"shape {clicked.shape}", rule="(N, 2), row and column")
    framed = _paired("rectangles", rectangles, rectangle_classes)
    annotation = Annotation(
        tags=tuple(tags),
        boxes=tuple(Box(c, _corners(r)) for r, c in framed),
        points=tuple(Point(c, _xy(p)) for p, c in _paired("points", clicked, point_classes)),
        scribbles=tuple(
            Scribble(c, tuple(_xy(v) for v in np.asarray(p, float)), width)
            for p, c in _paired("paths", paths, path_classes)
        ),
        mask=None if labels is None else _mask(np.asarray(labels), classes, values),
    )
    problems = annotation.validate(None, None, classes)
    if problems:
        raise problems[0].error()
    return annotation


def _paired(name: str, items: Iterable[Any], classes: Iterable[str]) -> list[tuple[Any, str]]:
    things, names = [*items], [*classes]
    if len(things) != len(names):
        raise InputError(f"{name}: one class each", found=len(names), rule=str(len(things)))
    return [*zip(things, names, strict=True)]


def _xy(position: NDArray[np.float64]) -> tuple[float, float]:
    if np.shape(position) != (2,) or not np.isfinite(position).all():
        raise InputError("position", found=position, rule="(row, column)")
    return tidy(float(position[1])), tidy(float(position[0]))


def _corners(rectangle: ArrayLike) -> tuple[float, float, float, float]:
    """The pixels from corner to corner, both included."""
    corners = np.asarray(rectangle, float)
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise InputError("rectangle", found=f"shape {corners.shape}", rule="(4, 2) or (2, 2)")
    (top, left), (bottom, right) = corners.min(0), corners.max(0)
    return tidy(max(left, 0)), tidy(max(top, 0)), tidy(right + 1), tidy(bottom + 1)


def _mask(
    labels: NDArray[Any], classes: Sequence[str], values: Mapping[int, str] | None
) -> NDArray[np.uint8]:
    if labels.ndim != 2 or labels.dtype.kind not in "biu":
        found = f"shape {labels.shape}, {labels.dtype}"
        raise InputError("labels", found=found, rule="(H, W) of integers")
    table = dict(enumerate(classes, 1)) if values is None else values
    mask = np.full(labels.shape, len(classes), np.uint8)
    for value in (int(v) for v in np.unique(labels)):
        if value in table:
            if table[value] not in classes:
                rule = f"one of {', '.join(classes)}"
                raise InputError("class of a label", found=table[value], rule=rule)
            mask[labels == value] = classes.index(table[value])
        elif value != 0:
            raise InputError("label without a class", found=value, rule=f"one of {sorted(table)}")
    return mask

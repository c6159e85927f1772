"""Random labels, written in a format and read back."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from format_files import save_image
from hypothesis import strategies as st

from weakseg.annotation import Annotation, Area, Box, Point, Scribble
from weakseg.dataset import Dataset
from weakseg.formats.exporting import ExportReport, export_dataset
from weakseg.formats.importing import import_dataset
from weakseg.seeds import seed_map

WIDTH, HEIGHT = 12, 10
CLASSES = ("background", "Coral", "sea grass", "crème & <b>")

labels = st.sampled_from(CLASSES)


def number(largest: float) -> st.SearchStrategy[float]:
    fraction = st.floats(0, largest, allow_nan=False).map(lambda v: round(v, 3))
    return st.one_of(st.integers(0, int(largest)), fraction)


# Further out, a centre has no place between the edges of the image.
positions = st.tuples(number(WIDTH - 0.5), number(HEIGHT - 0.5))


@st.composite
def corners(draw: Any, *, whole: bool = False) -> tuple[float, ...]:
    x = sorted(draw(st.lists(_edge(WIDTH, whole), min_size=2, max_size=2, unique=True)))
    y = sorted(draw(st.lists(_edge(HEIGHT, whole), min_size=2, max_size=2, unique=True)))
    return x[0], y[0], x[1], y[1]


def _edge(length: int, whole: bool) -> st.SearchStrategy[float]:
    return st.integers(0, length) if whole else number(length)


boxes = st.builds(Box, labels, corners())
points = st.builds(Point, labels, positions)
scribbles = st.builds(Scribble, labels, st.lists(positions, min_size=2, max_size=5).map(tuple))
areas = st.one_of(
    st.builds(lambda xyxy: Area(xyxy=xyxy), corners()),
    st.builds(lambda xy: Area(xy=tuple(xy)), st.lists(positions, min_size=3, max_size=5)),
)


@st.composite
def masks(draw: Any, ignore: bool = True) -> np.ndarray:
    """Rectangles on a ground of one value, so that components and holes of all sorts occur."""
    values = st.sampled_from([*range(len(CLASSES) + 1), *([255] if ignore else [])])
    mask = np.full((HEIGHT, WIDTH), draw(values), np.uint8)
    for _ in range(draw(st.integers(1, 8))):
        x0, y0, x1, y1 = draw(corners(whole=True))
        mask[y0:y1, x0:x1] = draw(values)
    return mask


def some(items: st.SearchStrategy[Any], kept: bool = True) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=3 if kept else 0).map(tuple)


def annotations(*kinds: str) -> st.SearchStrategy[Annotation]:
    """Annotations with some of these kinds of label."""
    return st.builds(
        Annotation,
        tags=some(labels, "tags" in kinds),
        boxes=some(boxes, "boxes" in kinds),
        points=some(points, "points" in kinds),
        scribbles=some(scribbles, "scribbles" in kinds),
        mask=st.one_of(st.none(), masks("ignore" in kinds)) if "masks" in kinds else st.none(),
        ignore=some(areas, "ignore" in kinds),
    )


def dataset_of(annotation: Annotation) -> Dataset:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return Dataset.from_arrays([picture], [annotation], CLASSES, background=CLASSES[0], names=["a"])


def round_trip(
    format: str, annotation: Annotation, out: str, **options: Any
) -> tuple[Annotation, ExportReport]:
    """Write to `out` (a name) and read again."""
    dataset = dataset_of(annotation)
    with tempfile.TemporaryDirectory() as folder:
        save_image(Path(folder, "photos", "a.png"), (WIDTH, HEIGHT))
        written = export_dataset(format, dataset, Path(folder, out))
        mask = annotation.mask
        full = isinstance(mask, np.ndarray) and not (mask == len(CLASSES)).any()
        again, report = import_dataset(
            format,
            Path(folder, out),
            None,
            **{"images": Path(folder, "photos"), "classes": CLASSES, "exhaustive": full} | options,
        )
        entry = again[0]
        # Masks are read before the folder goes.
        found = replace(entry.annotation, mask=None if entry.mask is None else entry.read_mask())
    assert report.problems == []
    return found, written


def assert_same(annotation: Annotation, again: Annotation) -> None:
    """Labels are the same but for their order and a millionth of a pixel."""
    assert {*again.tags} == {*annotation.tags}
    for kind in ("boxes", "points", "scribbles"):
        first, second = (sorted(map(_rounded, getattr(a, kind))) for a in (annotation, again))
        assert first == second
    # What is to be ignored may become an area out of a mask, with the same effect.
    info = dataset_of(Annotation()).info
    maps = [
        seed_map(replace(a, tags=(), boxes=(), points=(), scribbles=()), info, (HEIGHT, WIDTH))
        for a in (annotation, again)
    ]
    np.testing.assert_array_equal(*maps)


def _rounded(item: Any) -> Any:
    numbers = np.round(np.array(item.xyxy if isinstance(item, Box) else item.xy, float), 5)
    return item.label, numbers.tolist(), getattr(item, "width", 0)

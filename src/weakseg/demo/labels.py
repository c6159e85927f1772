"""Weak labels as an annotator would give them, simulated from a full mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from weakseg.annotation import Annotation, Box, Point, Scribble

SCRIBBLE_WIDTH = 3

_SMALLEST = 150  # pixels; smaller pieces get no point and no scribble, as by hand
_EIGHT = np.ones((3, 3), bool)


def simulate_labels(
    mask: NDArray[np.uint8],
    objects: NDArray[np.uint8],
    classes: Sequence[str],
    rng: np.random.Generator,
) -> Annotation:
    """Tags, boxes, points and scribbles of one scene.

    Args:
        mask: (H, W) index into `classes`; 0 is background.
        objects: (H, W), 0 for background, then a number for each object.
        classes: their names.
        rng: decides where an annotator would click and draw.

    Returns:
        A tag for every class but background, the tight box of what is visible of each object,
        and a point and a scribble for each connected piece of a class and one of each for the
        background.
    """
    points, scribbles = [], []
    for label, piece in _pieces(mask):
        depth = _depth(piece)
        points.append(Point(classes[label], _click(depth, rng)))
        scribbles.append(Scribble(classes[label], _stroke(depth, rng), SCRIBBLE_WIDTH))
    return Annotation(
        tags=tuple(classes[label] for label in np.unique(mask) if label != 0),
        boxes=tuple(_boxes(mask, objects, classes)),
        points=tuple(points),
        scribbles=tuple(scribbles),
    )


def _pieces(mask: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Class and pixels of each connected piece; of background the largest alone."""
    for label in np.unique(mask):
        numbered, _ = ndimage.label(mask == label, _EIGHT)
        areas = np.bincount(numbered.ravel())[1:]
        numbers = np.flatnonzero(areas >= _SMALLEST) if label else [areas.argmax()]
        for number in numbers:
            yield int(label), numbered == number + 1


def _boxes(
    mask: NDArray[np.uint8], objects: NDArray[np.uint8], classes: Sequence[str]
) -> Iterator[Box]:
    for number in np.unique(objects[objects > 0]):
        rows, columns = np.nonzero(objects == number)
        label = classes[mask[rows[0], columns[0]]]
        x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        yield Box(label, (int(x0), int(y0), int(x1), int(y1)))


def _depth(piece: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of each pixel of a piece to its border, the image's border included."""
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(np.pad(piece, 1))
    return depth[1:-1, 1:-1]


def _click(depth: NDArray[np.float64], rng: np.random.Generator) -> tuple[int, int]:
    """A random position well inside a piece, (x, y)."""
    rows, columns = np.nonzero(depth >= min(8, 0.7 * depth.max()))
    chosen = rng.integers(len(rows))
    return int(columns[chosen]), int(rows[chosen])


def _stroke(depth: NDArray[np.float64], rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """A wobbling stroke along part of the longest line of a piece's skeleton, positions (x, y)."""
    inner = depth > min(3, 0.5 * depth.max())
    line = _longest_line(np.argwhere(skeletonize(inner)))  # type: ignore[no-untyped-call]
    length = max(2, round(min(len(line) * rng.uniform(0.3, 0.7), 90)))
    start = rng.integers(len(line) - length + 1) if len(line) > length else 0
    line = line[start : start + length]
    line = line[np.unique(np.linspace(0, len(line) - 1, max(2, len(line) // 9)).astype(int))]
    room = np.clip(depth[tuple(line.T)] - 3, 0, 4)[:, None]
    wobbled = line + np.clip(rng.normal(0, 0.5, line.shape), -1, 1) * room
    wobbled = np.clip(np.rint(wobbled), 0, np.array(depth.shape) - 1).astype(int)
    positions = [(int(x), int(y)) for y, x in wobbled]
    if len(positions) == 1:  # a piece so round that its skeleton is a dot
        x, y = positions[0]
        reach = int(max(1, depth[y, x] / 2))
        positions = [(max(0, x - reach), y), (min(depth.shape[1] - 1, x + reach), y)]
    return tuple(positions)


def _longest_line(skeleton: NDArray[np.int64]) -> NDArray[np.int64]:
    """The skeleton pixels (n, 2) on the longest of all shortest ways through it, in order."""
    pairs = cKDTree(skeleton).query_pairs(1.5, output_type="ndarray")
    if len(pairs) == 0:
        return skeleton[:1]
    lengths = np.hypot(*(skeleton[pairs[:, 0]] - skeleton[pairs[:, 1]]).T)
    graph = coo_matrix((lengths, tuple(pairs.T)), (len(skeleton), len(skeleton)))
    # Farthest from anywhere, then farthest from there: in a tree the longest way.
    end = _farthest(dijkstra(graph, directed=False, indices=pairs[0, 0]))
    distances, before = dijkstra(graph, directed=False, indices=end, return_predecessors=True)
    way = [_farthest(distances)]
    while way[-1] != end:
        way.append(int(before[way[-1]]))
    line: NDArray[np.int64] = skeleton[way]
    return line


def _farthest(distances: NDArray[np.float64]) -> int:
    return int(np.where(np.isfinite(distances), distances, -1).argmax())

"""Between pixels and the shapes of annotation tools: filled outlines, run lengths, contours.

Outlines are in edge coordinates: pixel i covers i..i+1, its centre is at i + 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from weakseg.errors import InputError

Ring = NDArray[np.float64]
"""A closed outline, (n, 2) of (x, y); the first position is not repeated."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Some pixels of an image: `inside` (h, w) bool, its upper left pixel at `corner` = (x, y)."""

    corner: tuple[int, int]
    inside: NDArray[np.bool_]

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """The view of an (H, W) array that `inside` is about."""
        (x, y), (h, w) = self.corner, self.inside.shape
        return image[y : y + h, x : x + w]

    def on(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels as an (H, W) bool map."""
        whole = np.zeros(size, bool)
        self.of(whole)[:] = self.inside
        return whole


_NOTHING = np.zeros((0, 0), bool)
_CROSSINGS = 1 << 20  # of edges and rows, held at once


def fill_rings(rings: Sequence[ArrayLike], size: tuple[int, int]) -> Patch:
    """The pixels of an image of `size` = (H, W) whose centres lie within outlines.

    Rings within rings are holes (even-odd rule). A centre on an edge counts for the left and the
    upper edge of a shape and not for the others, so that neighbours share no pixel.
    """
    edges = [np.asarray(ring, np.float64) for ring in rings]
    corners = np.concatenate(edges)
    low = np.clip(np.ceil(corners.min(0) - 0.5), 0, size[::-1]).astype(np.int64)
    high = np.clip(np.ceil(corners.max(0) - 0.5), 0, size[::-1]).astype(np.int64)
    width, height = high - low
    if width <= 0 or height <= 0:
        return Patch((0, 0), _NOTHING)
    flips = np.zeros((height, width + 1), np.uint8)
    for start, end in _in_parts(edges, int(height)):
        top, bottom = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        # Rows whose centre line the edge crosses.
        first = np.clip(np.ceil(top - 0.5) - low[1], 0, height).astype(np.int64)
        last = np.clip(np.ceil(bottom - 0.5) - low[1], 0, height).astype(np.int64)
        count = last - first
        edge = np.repeat(np.arange(len(start)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count - first, count)
        (x0, y0), (x1, y1) = start[edge].T, end[edge].T
        x = x0 + (row + low[1] + 0.5 - y0) * (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
        column = np.clip(np.ceil(x - 0.5) - low[0], 0, width).astype(np.int64)
        np.bitwise_xor.at(flips, (row, column), np.uint8(1))
    inside = np.bitwise_xor.accumulate(flips, axis=1)[:, :width].astype(bool)
    return Patch((int(low[0]), int(low[1])), inside)


def _in_parts(rings: Sequence[Ring], height: int) -> Iterator[tuple[Ring, Ring]]:
    """The edges of outlines, (n, 2) starts and ends, as many at a time as memory is kept for."""
    step = max(1, _CROSSINGS // height)
    for ring in rings:
        after = np.roll(ring, -1, axis=0)
        for first in range(0, len(ring), step):
            yield ring[first : first + step], after[first : first + step]


def runs_to_patch(
    counts: Sequence[int],
    window: tuple[int, int],
    corner: tuple[int, int],
    size: tuple[int, int],
    by_columns: bool,
) -> Patch:
    """The pixels that run lengths give, outside and inside in turn.

    Args:
        counts: run lengths that add up to the window's area.
        window: (h, w) that they fill.
        corner: (x, y) of the window's upper left pixel.
        size: (H, W) of the image, which must hold the window.
        by_columns: whether they go down the columns instead of along the rows.

    Raises:
        InputError: they do not fit.
    """
    (h, w), (x, y) = window, corner
    if h <= 0 or w <= 0 or x < 0 or y < 0 or x + w > size[1] or y + h > size[0]:
        found = f"{w} x {h} at ({x}, {y})"
        raise InputError("mask outside the image", found=found, rule=f"in {size[1]} x {size[0]}")
    try:
        lengths = np.asarray(counts, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("run lengths", found=counts, rule="whole numbers") from error
    # Each is checked before the sum, which might overflow.
    off = lengths.ndim != 1 or (lengths < 0).any() or (lengths > h * w).any()
    if off or lengths.sum() != h * w:
        found = f"{lengths.size} of them, sum {lengths.sum()}"
        raise InputError("run lengths do not fill the mask", found=found, rule=f"sum {h * w}")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return Patch((x, y), flat.reshape(w, h).T if by_columns else flat.reshape(h, w))


def run_lengths(inside: NDArray[np.bool_], *, by_columns: bool = False) -> list[int]:
    """The inverse of `runs_to_patch`: lengths of runs, the first of them outside."""
    flat = (inside.T if by_columns else inside).reshape(-1)
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    lengths: list[int] = np.diff(np.array([0, *changes, flat.size])).tolist()
    return lengths


def turned(ring: ArrayLike, centre: tuple[float, float], angle: float) -> Ring:
    """Positions (n, 2) turned by `angle` degrees about `centre`, clockwise as seen on screen."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    around: Ring = (np.asarray(ring) - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre
    return around


def components(mask: NDArray[Any], value: int) -> Iterator[Patch]:
    """The 4-connected components of the pixels that hold `value`, each in its bounding box."""
    labels, _ = ndimage.label(mask == value)
    for index, window in enumerate(ndimage.find_objects(labels), 1):
        yield Patch((window[1].start, window[0].start), labels[window] == index)


def outline(patch: Patch, tolerance: float = 0) -> list[Ring]:
    """The outline of a 4-connected component, then those of its holes.

    They run between the centres of pixels inside and outside, so that filling them gives back
    the component exactly.

    Args:
        patch: the component.
        tolerance: simplify so that no position moves by more, in pixels; 0 only leaves out what
            makes no difference.
    """
    padded = np.pad(patch.inside, 1).astype(np.uint8)
    rings = []
    # Inside pixels that touch at a corner only are apart, as for the components.
    contours = find_contours(padded, 0.5, fully_connected="low")  # type: ignore[no-untyped-call]
    for contour in contours:
        # Padding by one and the centre at + 0.5 make an offset of -0.5.
        ring = contour[:, ::-1] + (patch.corner[0] - 0.5, patch.corner[1] - 0.5)
        ring = _without_straight(ring[:-1])
        if tolerance > 0:
            closed = np.vstack([ring, ring[:1]])
            simple = approximate_polygon(closed, tolerance)[:-1]  # type: ignore[no-untyped-call]
            ring = simple if len(simple) >= 3 else ring
        rings.append(ring)
    # The outer outline encloses all others.
    return sorted(rings, key=lambda ring: -float(np.ptp(ring[:, 0])) * float(np.ptp(ring[:, 1])))


def join_holes(rings: Sequence[Ring]) -> Ring:
    """One outline out of an outer one and its holes, for tools that know no holes.

    A cut leads from each hole to what encloses it; there and back it adds no area.
    """
    joined = rings[0]
    for hole in sorted(rings[1:], key=lambda ring: float(ring[:, 0].min())):
        at = int(hole[:, 0].argmin())
        x, y = hole[at]
        start, end = joined, np.roll(joined, -1, axis=0)
        low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = start[:, 0] + (y - start[:, 1]) * (end - start)[:, 0] / (end - start)[:, 1]
        crossing = np.where((low <= y) & (y <= high) & (low < high), crossing, np.inf)
        crossing = np.where(crossing < x, crossing, -np.inf)
        edge = int(crossing.argmax())
        foot = np.array([[crossing[edge], y]])
        if not np.isfinite(foot).all():  # a simplified hole that sticks out; start from a corner
            edge = int(np.hypot(*(joined - hole[at]).T).argmin())
            foot = joined[edge : edge + 1]
        around = np.roll(hole, -at, axis=0)
        joined = np.vstack([joined[: edge + 1], foot, around, around[:1], foot, joined[edge + 1 :]])
    return joined


def _without_straight(ring: Ring) -> Ring:
    """Leave out positions on the straight line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    kept = ring[np.abs(turn) > 1e-9]
    return kept if len(kept) >= 3 else ring

"""Weak labels as an annotator would give them, simulated from full masks."""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from skimage.draw import line as line_pixels
from skimage.measure import approximate_polygon
from skimage.morphology import skeletonize

from weakseg.annotation import KINDS, Annotation, Box, Point, Scribble, check_kinds
from weakseg.dataset import Dataset, DatasetInfo, DatasetWriter, Entry
from weakseg.errors import InputError

_EIGHT = np.ones((3, 3), bool)
_STEP = 12.0  # pixels over which a hand's wobble changes


@dataclass(frozen=True)
class Annotator:
    """How somebody labels.

    Args:
        length: of a stroke, as a share of its object's medial line.
        wobble: of a stroke, pixels (standard deviation); it never leaves the object.
        width: of a stroke, pixels.
        centre: how much clicks favour the middle of an object: 0 anywhere in it, 1 always its
            innermost pixel.
        loose: how far the sides of a box lie outside, up to this share of its width or height;
            a fifth as far they may cut into the object.
        missed: chance that the tag of a small object is forgotten; that of a class which fills
            the image is not.
        smallest: pieces of fewer pixels get no point and no stroke, unless their class has no
            larger one.

    Raises:
        InputError: a value is out of its range.
    """

    length: float = 0.5
    wobble: float = 1.0
    width: float = 3.0
    centre: float = 0.7
    loose: float = 0.0
    missed: float = 0.0
    smallest: int = 30

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if not 0 <= value <= largest:
                rule = f"0..{largest}" if largest < np.inf else "0 or more"
                raise InputError(name, found=value, rule=rule)
        if self.width == 0 or self.length == 0:
            raise InputError("stroke without width or length", rule="values above 0")


_LARGEST = {
    "length": 1,
    "wobble": np.inf,
    "width": np.inf,
    "centre": 1,
    "loose": np.inf,
    "missed": 1,
    "smallest": np.inf,
}


def simulate_dataset(
    dataset: Dataset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    kinds: Collection[str],
    *,
    annotator: Annotator | None = None,
    seed: int = 0,
    split: str | None = "train",
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[Dataset, int]:
    """Copy a data set with labels of some kinds simulated from its masks.

    Labels of the same kinds are replaced, all others stay, images are linked. An image's labels
    depend on its name and the seed, not on the other images or kinds.

    Args:
        dataset: the data set or its folder.
        out: folder of the new one.
        kinds: any of points, scribbles, boxes and tags.
        annotator: how they are made.
        seed: another seed, other labels.
        split: the part to simulate labels for, None for all.
        overwrite: replace a data set that is there.
        progress: show a progress bar.

    Returns:
        The new data set, and the number of images of the part that had no mask to simulate from.

    Raises:
        InputError: there is no mask at all, or `out` is taken.
    """
    if not isinstance(dataset, Dataset):
        dataset = Dataset.open(dataset)
    wanted = check_kinds(kinds)
    if not wanted or "masks" in wanted:
        raise InputError("kinds to simulate", found=kinds, rule=", ".join(KINDS[1:]))
    if dataset.folder is not None and Path(out).resolve() == dataset.folder.resolve():
        raise InputError("a data set cannot replace itself", file=out, rule="another folder")
    chosen = dataset if split is None else dataset.split(split)
    if "masks" not in chosen.kinds(None):
        raise InputError(
            "no masks to simulate labels from", file=dataset.folder, found=f"split {split}"
        )
    entries = track(dataset, "simulating", console=Console(stderr=True), disable=not progress)
    without = 0
    with DatasetWriter(out, dataset.info, link=True, overwrite=overwrite) as writer:
        for entry in entries:
            annotation = entry.annotation
            if split is None or entry.split == split:
                if entry.mask is None:
                    without += 1
                else:
                    annotation = _simulated(entry, dataset.info, wanted, annotator, seed)
            writer.add(
                entry.image, annotation, name=entry.name, split=entry.split, meta=dict(entry.meta)
            )
    return Dataset.open(out), without


def _simulated(
    entry: Entry,
    info: DatasetInfo,
    kinds: tuple[str, ...],
    annotator: Annotator | None,
    seed: int,
) -> Annotation:
    name = zlib.crc32(entry.name.encode())
    made = simulate_labels(entry.read_mask(), info, kinds, annotator=annotator, seed=(seed, name))
    return replace(entry.annotation, **{kind: getattr(made, kind) for kind in kinds})


def simulate_labels(
    mask: NDArray[np.integer],
    info: DatasetInfo,
    kinds: Collection[str],
    *,
    annotator: Annotator | None = None,
    seed: int | tuple[int, ...] = 0,
) -> Annotation:
    """Weak labels of one image.

    Args:
        mask: (H, W) of class indices; unlabelled and ignored pixels belong to no object.
        info: classes; of the background, only the largest piece gets a point and a stroke, and
            none gets a box or a tag.
        kinds: any of points, scribbles, boxes and tags.
        annotator: how they are made.
        seed: another seed, other labels. Kinds do not influence each other.

    Returns:
        For each 8-connected piece of a class a point, a stroke and a box; for each class a tag.
    """
    annotator = annotator or Annotator()
    seeds = seed if isinstance(seed, tuple) else (seed,)
    rng = {kind: np.random.default_rng([*seeds, i]) for i, kind in enumerate(KINDS)}
    made: dict[str, list[object]] = {kind: [] for kind in kinds}
    for index in np.unique(mask[mask < info.unlabelled]).tolist():
        label, background = info.classes[index], index == info.background_index
        if "tags" in kinds and not background:
            share = float((mask == index).mean())
            if rng["tags"].random() >= annotator.missed * min(2 * (1 - share**0.5), 1):
                made["tags"].append(label)
        pieces = [*_pieces(mask == index)]
        if "boxes" in kinds and not background:
            for window, _ in pieces:
                made["boxes"].append(
                    Box(label, _loose_box(window, mask.shape, annotator.loose, rng["boxes"]))
                )
        if "points" not in kinds and "scribbles" not in kinds:
            continue
        for window, inside in _worth_a_mark(pieces, annotator.smallest, only_one=background):
            depth = _depth(inside)
            corner = window[1].start, window[0].start
            if "points" in kinds:
                x, y = _click(depth, annotator.centre, rng["points"])
                made["points"].append(Point(label, (x + corner[0], y + corner[1])))
            if "scribbles" in kinds:
                made["scribbles"].append(
                    _stroke(label, inside, depth, corner, annotator, rng["scribbles"])
                )
    return Annotation(**{kind: tuple(items) for kind, items in made.items()})  # type: ignore[arg-type]


Piece = tuple[tuple[slice, slice], NDArray[np.bool_]]
"""The window of a connected piece and its pixels in it."""


def _pieces(inside: NDArray[np.bool_]) -> Iterator[Piece]:
    numbered, _ = ndimage.label(inside, _EIGHT)
    for number, window in enumerate(ndimage.find_objects(numbered), 1):
        yield window, numbered[window] == number


def _worth_a_mark(pieces: list[Piece], smallest: int, *, only_one: bool) -> list[Piece]:
    pieces = sorted(pieces, key=lambda piece: -int(piece[1].sum()))
    if only_one:
        return pieces[:1]
    return [p for i, p in enumerate(pieces) if i == 0 or p[1].sum() >= smallest]


def _depth(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of each pixel to the outside of its piece, the border of the window included."""
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    return depth


def _click(depth: NDArray[np.float64], centre: float, rng: np.random.Generator) -> tuple[int, int]:
    """A position in the piece, (x, y), the likelier the deeper it lies."""
    y, x = np.nonzero(depth)
    if centre == 1:
        chosen = int(depth[y, x].argmax())
    else:
        weights = (depth[y, x] / depth.max()) ** (2 * centre / (1 - centre))
        chosen = int(rng.choice(len(x), p=weights / weights.sum()))
    return int(x[chosen]), int(y[chosen])


def _loose_box(
    window: tuple[slice, slice], size: tuple[int, ...], loose: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    (y0, y1), (x0, x1) = ((side.start, side.stop) for side in window)
    out = rng.uniform(-0.2, 1, 4) * loose * np.array([x1 - x0, y1 - y0] * 2)
    left, top = max(0, round(x0 - out[0])), max(0, round(y0 - out[1]))
    right, bottom = min(size[1], round(x1 + out[2])), min(size[0], round(y1 + out[3]))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _stroke(
    label: str,
    inside: NDArray[np.bool_],
    depth: NDArray[np.float64],
    corner: tuple[int, int],
    annotator: Annotator,
    rng: np.random.Generator,
) -> Scribble:
    """A wobbling stroke along a part of the medial line of a piece."""
    medial = _medial_line(inside, depth)
    count = max(2, round(annotator.length * len(medial)))
    start = int(rng.integers(max(len(medial) - count, 0) + 1))
    medial = medial[start : start + count]
    drawn = medial + _wobble(medial, depth, annotator.wobble, rng)
    # A straight piece may cut a corner of the object; then more of the bends are kept.
    for path, tolerance in ((drawn, 1.0), (drawn, 0.5), (medial, 1.0), (medial, 0.0)):
        simple = approximate_polygon(path, tolerance)  # type: ignore[no-untyped-call]
        if _stays_inside(simple, inside):
            break
    width = annotator.width if depth[tuple(medial.T)].min() > 1 else min(annotator.width, 1)
    positions = np.rint(simple).astype(int)[:, ::-1] + corner
    return Scribble(label, tuple((int(x), int(y)) for x, y in positions), width)


def _wobble(
    line: NDArray[np.int64], depth: NDArray[np.float64], size: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    noise = rng.normal(0, 1, line.shape)
    smooth = ndimage.gaussian_filter1d(noise, _STEP / 2, axis=0, mode="nearest")
    smooth *= size / max(float(smooth.std()), 0.3) if len(line) > 2 else 0
    room = np.maximum(depth[tuple(line.T)] - 1.5, 0)[:, None] / 2**0.5
    limited: NDArray[np.float64] = np.clip(smooth, -room, room)
    return limited


def _stays_inside(path: NDArray[np.float64], inside: NDArray[np.bool_]) -> bool:
    corners = np.rint(path).astype(int)
    for (r0, c0), (r1, c1) in pairwise(corners):
        pixels = line_pixels(r0, c0, r1, c1)  # type: ignore[no-untyped-call]
        if not inside[pixels].all():
            return False
    return True


def _medial_line(inside: NDArray[np.bool_], depth: NDArray[np.float64]) -> NDArray[np.int64]:
    """The longest of all shortest ways through a piece's skeleton, (n, 2) of row and column."""
    skeleton = np.argwhere(skeletonize(np.pad(inside, 1))[1:-1, 1:-1])  # type: ignore[no-untyped-call]
    line = _longest_way(skeleton) if len(skeleton) else skeleton
    if len(line) > 1:
        return line
    # Round pieces have a dot for a skeleton: across their middle, then.
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    reach = int(depth[row, column] / 2)
    columns = np.arange(column - reach, column + reach + 1)
    if len(columns) == 1:
        columns = np.repeat(columns, 2)
    return np.stack([np.full(len(columns), row), columns], axis=1).astype(np.int64)


def _longest_way(skeleton: NDArray[np.int64]) -> NDArray[np.int64]:
    pairs = cKDTree(skeleton).query_pairs(1.5, output_type="ndarray")
    if len(pairs) == 0:
        return skeleton[:1]
    lengths = np.hypot(*(skeleton[pairs[:, 0]] - skeleton[pairs[:, 1]]).T)
    graph = coo_matrix((lengths, tuple(pairs.T)), (len(skeleton), len(skeleton))).tocsr()
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

"""From an annotation to a seed map.

A seed map is (H, W) int32: `0..C-1` is a class, `C` (`info.unlabelled`) is *unlabelled*, and
`info.ignore` is *ignored*. Unlabelled pixels are grouped and learn through every relation but the
annotation one; ignored pixels are dropped everywhere. Rules after "SPML" (Ke, Hwang, Yu, ICLR
2021); where kinds of label disagree the more certain one wins: mask, then scribble and point, then
box, then tag. Areas to ignore win over all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.annotation import KINDS, Annotation, Area, Box, check_kinds
from weakseg.dataset_info import DatasetInfo
from weakseg.errors import InputError
from weakseg.images import read_mask


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Where in one image a classifier sees each of some classes (class activation maps).

    Args:
        classes: K class indices.
        scores: (K, h, w) float32 in 0..1, of any resolution.

    Raises:
        InputError: shapes do not match, or a score is not finite.
    """

    classes: tuple[int, ...]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, np.float32)
        if scores.ndim != 3 or len(scores) != len(self.classes) or 0 in scores.shape[1:]:
            rule = f"({len(self.classes)}, h, w)"
            raise InputError("class maps", found=f"shape {scores.shape}", rule=rule)
        if not np.isfinite(scores).all():
            raise InputError("class maps", found="NaN or infinite scores", rule="0..1")
        object.__setattr__(self, "classes", tuple(int(c) for c in self.classes))
        object.__setattr__(self, "scores", scores)

    def at(self, index: int, size: tuple[int, int]) -> NDArray[np.float32] | None:
        """The map of class `index` resized bilinearly to `size` = (H, W); None without one."""
        if index not in self.classes:
            return None
        scores: NDArray[np.float32] = self.scores[self.classes.index(index)]
        if scores.shape == size:
            return scores
        resized = Image.fromarray(scores).resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(resized, np.float32)


def seed_map(
    annotation: Annotation,
    info: DatasetInfo,
    size: tuple[int, int],
    *,
    kinds: Collection[str] | None = None,
    cam: ClassMaps | None = None,
    point_radius: float = 6,
    box_threshold: float = 0.5,
    fill_boxes: bool = False,
    foreground: float = 0.5,
    background: float = 0.15,
) -> NDArray[np.int32]:
    """The seeds that an annotation gives.

    Args:
        annotation: the labels.
        info: classes and rules of the data set.
        size: (H, W) of the image.
        kinds: the kinds of label to use; default: all that the annotation has.
        cam: class activation maps, which boxes and tags need to say which pixels they mean.
        point_radius: radius in pixels of the disc that a point labels.
        box_threshold: pixels of a box whose CAM, scaled to 0..1 within the box, reaches this
            take the box's class; the others in boxes stay unlabelled.
        fill_boxes: give all pixels of a box its class, instead of using `cam`.
        foreground: with tags, pixels whose best class, over that class's maximum, reaches this
            take that class.
        background: with tags, pixels whose best class is at most this are background; the band
            between the two stays unlabelled.

    Returns:
        (H, W) int32 seed map.

    Raises:
        InputError: a label is outside the image or of an unknown class, or the mask does not fit.
    """
    height, width = size
    used = annotation.restrict(KINDS if kinds is None else check_kinds(kinds))
    problems = used.validate(width, height, info.classes)
    if problems:
        raise problems[0].error()
    seeds = np.full(size, info.unlabelled, np.int32)
    if used.tags:
        _apply_tags(seeds, used.tags, info, cam, foreground, background)
    if used.boxes:
        _apply_boxes(
            seeds, used.boxes, info, None if fill_boxes else cam, box_threshold, fill_boxes
        )
    _apply_marks(seeds, used, info, point_radius)
    if used.mask is not None:
        mask = full_mask(used.mask, info, size)
        np.copyto(seeds, mask, where=mask != info.unlabelled)
    for area in used.ignore:
        seeds[_area_pixels(area, size)] = info.ignore
    return seeds


def draw_boxes_filled(
    boxes: Iterable[Box], info: DatasetInfo, size: tuple[int, int]
) -> NDArray[np.int32]:
    """Seed map of boxes filled with their classes, (H, W) int32; the smaller box wins.

    Pixels outside every box are background where the data set's boxes are exhaustive and it has
    a background class, and unlabelled otherwise.
    """
    seeds = np.full(size, info.unlabelled, np.int32)
    _apply_boxes(seeds, tuple(boxes), info, None, 0, fill=True)
    return seeds


def seeds_at(
    seeds: NDArray[np.int32], size: tuple[int, int], *, classes: int, ignore: int = 255
) -> NDArray[np.int32]:
    """Shrink a seed map to a coarser grid so that sparse labels survive.

    A cell takes the class of most of its labelled pixels, if it has any (of equally many, the
    class that is rarer in the map); it is ignored if all its pixels are; else it is unlabelled.

    Args:
        seeds: (H, W) seed map.
        size: (h, w) of the grid. Where it is finer than the map, pixels are repeated.
        classes: number of classes, the value of unlabelled pixels.
        ignore: value of ignored pixels.

    Returns:
        (h, w) int32 seed map.
    """
    h, w = size
    if h > seeds.shape[0]:
        seeds = seeds[np.arange(h) * seeds.shape[0] // h]
    if w > seeds.shape[1]:
        seeds = seeds[:, np.arange(w) * seeds.shape[1] // w]
    rows = np.arange(seeds.shape[0]) * h // seeds.shape[0]
    columns = np.arange(seeds.shape[1]) * w // seeds.shape[1]
    cells = rows[:, None] * w + columns

    grid = np.full(h * w, classes, np.int32)
    not_ignored = np.zeros(h * w, bool)
    not_ignored[cells[seeds != ignore]] = True
    grid[~not_ignored] = ignore

    labelled = (seeds < classes) & (seeds != ignore)
    found, cell = seeds[labelled], cells[labelled]
    totals = np.bincount(found, minlength=classes)
    present = np.flatnonzero(totals)
    present = present[np.argsort(totals[present], kind="stable")]  # argmax takes the first
    if len(present):
        rank = np.zeros(classes, np.int64)
        rank[present] = np.arange(len(present))
        votes = np.bincount(cell * len(present) + rank[found], minlength=h * w * len(present))
        votes = votes.reshape(h * w, len(present))
        voted = votes.any(axis=1)
        grid[voted] = present[votes[voted].argmax(axis=1)]
    return grid.reshape(h, w)


def _apply_tags(
    seeds: NDArray[np.int32],
    tags: tuple[str, ...],
    info: DatasetInfo,
    cam: ClassMaps | None,
    foreground: float,
    background: float,
) -> None:
    possible = {*tags} if info.background is None else {*tags, info.background}
    if info.tags_exhaustive and len(possible) == 1:
        seeds[:] = info.index(possible.pop())
        return
    best = np.zeros(seeds.shape, np.float32)
    label = np.full(seeds.shape, info.unlabelled, np.int32)
    seen = False
    for tag in tags:
        scores = None if cam is None else cam.at(info.index(tag), seeds.shape)
        if tag == info.background or scores is None:
            continue
        seen = True
        scores = scores / max(float(scores.max()), 1e-12)
        better = scores > best
        best[better] = scores[better]
        label[better] = info.index(tag)
    sure = best >= foreground
    seeds[sure] = label[sure]
    if seen and info.tags_exhaustive and info.background_index is not None:
        seeds[best <= background] = info.background_index


def _apply_boxes(
    seeds: NDArray[np.int32],
    boxes: tuple[Box, ...],
    info: DatasetInfo,
    cam: ClassMaps | None,
    threshold: float,
    fill: bool,
) -> None:
    """Boxes decide inside every box, and outside too where they are exhaustive."""
    if info.boxes_exhaustive and info.background_index is not None:
        seeds[:] = info.background_index
    windows = [box_window(box.xyxy, seeds.shape) for box in boxes]
    for window in windows:
        seeds[window] = info.unlabelled
    # The smaller box is drawn last: a person on a sofa stays a person.
    for i in sorted(range(len(boxes)), key=lambda i: -boxes[i].area):
        index = info.index(boxes[i].label)
        inside = seeds[windows[i]]
        scores = None if cam is None else cam.at(index, seeds.shape)
        if fill:
            inside[:] = index
        elif scores is not None:
            scores = scores[windows[i]]
            low, high = float(scores.min()), float(scores.max())
            # In a box where the map is flat, as in one of a few pixels, all pixels count.
            inside[scores >= low + threshold * (high - low)] = index


def _apply_marks(
    seeds: NDArray[np.int32], annotation: Annotation, info: DatasetInfo, point_radius: float
) -> None:
    """Discs and strokes; where they overlap, a pixel belongs to the mark that is nearest."""
    nearest = np.full(seeds.size, np.inf, np.float32)
    flat = seeds.reshape(-1)
    marks = [(s.label, np.array(s.xy, float), s.width / 2) for s in annotation.scribbles]
    marks += [(p.label, np.array([p.xy], float), point_radius) for p in annotation.points]
    for label, xy, radius in marks:
        pixels, distances = _stroke(xy, radius, seeds.shape)
        nearer = distances < nearest[pixels]
        flat[pixels[nearer]] = info.index(label)
        np.minimum.at(nearest, pixels, distances)


def _stroke(
    xy: NDArray[np.float64], radius: float, size: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Flat indices of the pixels within `radius` of a polyline (n, 2), and their distances.

    The pixels nearest to its vertices belong to it however thin it is.
    """
    vertices = np.clip(np.rint(xy), 0, (size[1] - 1, size[0] - 1)).astype(np.int64)
    pixels = [vertices[:, 1] * size[1] + vertices[:, 0]]
    distances = [np.hypot(*(vertices - xy).T).astype(np.float32)]
    starts, ends = _pieces(xy, longest=max(12.0, 2 * radius))
    corner = np.floor(np.minimum(starts, ends) - radius).astype(np.int64)
    side = int(np.ceil(np.abs(ends - starts).max() + 2 * radius)) + 2
    step = max(1, 2_000_000 // side**2)  # bounds the memory of a wide stroke
    for i in range(0, len(starts), step):
        some = slice(i, i + step)
        x = corner[some, 0, None, None] + np.arange(side)
        y = corner[some, 1, None, None] + np.arange(side)[:, None]
        x0, y0 = (starts[some, k, None, None] for k in (0, 1))
        dx, dy = ((ends - starts)[some, k, None, None] for k in (0, 1))
        length = np.maximum(dx * dx + dy * dy, 1e-12)
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / length, 0, 1)
        squared = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2
        near = squared <= radius * radius + 1e-9
        near &= (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
        pixels.append((y * size[1] + x)[near])
        distances.append(np.sqrt(squared[near]).astype(np.float32))
    return np.concatenate(pixels), np.concatenate(distances)


def _pieces(
    xy: NDArray[np.float64], longest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start and end (m, 2) of straight pieces of a polyline; a point is one piece."""
    if len(xy) == 1:
        return xy, xy
    vector = np.diff(xy, axis=0)
    count = np.maximum(np.ceil(np.hypot(*vector.T) / longest), 1).astype(np.int64)
    segment = np.repeat(np.arange(len(vector)), count)
    position = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    share = vector[segment] / count[segment, None]
    starts = xy[segment] + share * position[:, None]
    return starts, starts + share


def box_window(xyxy: tuple[float, ...], size: tuple[int, ...]) -> tuple[slice, slice]:
    """The pixels whose centres lie in a half-open box, one at least."""
    x0, y0, x1, y1 = (max(0, int(np.ceil(v))) for v in xyxy)
    x0, y0 = min(x0, size[1] - 1), min(y0, size[0] - 1)
    return slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))


def full_mask(
    mask: NDArray[Any] | Path, info: DatasetInfo, size: tuple[int, int]
) -> NDArray[np.int32]:
    """A full mask as a seed map, (H, W).

    Args:
        mask: array of class indices, or file.
        info: classes, and the value of ignored pixels.
        size: (H, W) that it must have.

    Raises:
        InputError: missing, damaged, of another size, or a value is no class.
    """
    file = None if isinstance(mask, np.ndarray) else mask
    values = mask if isinstance(mask, np.ndarray) else read_mask(mask, size[::-1])
    wrong = values[(values < 0) | (values > info.unlabelled) & (values != info.ignore)]
    if wrong.size:
        raise InputError(
            "mask value is not a class", file=file, found=int(wrong[0]), rule=mask_rule(info)
        )
    return values.astype(np.int32)


def mask_rule(info: DatasetInfo) -> str:
    """What the values of a mask mean, in words."""
    return (
        f"0..{info.unlabelled - 1} (classes), {info.unlabelled} (unlabelled) or "
        f"{info.ignore} (ignored)"
    )


def _area_pixels(area: Area, size: tuple[int, int]) -> Any:
    if area.xyxy is not None:
        x0, y0, x1, y1 = (max(0, int(np.ceil(v))) for v in area.xyxy)
        return slice(y0, y1), slice(x0, x1)
    from skimage.draw import polygon

    x, y = np.array(area.xy, float).T
    return polygon(y, x, size)  # type: ignore[no-untyped-call]

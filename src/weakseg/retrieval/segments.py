"""A photograph to rows of the index: its segments, with what is known of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.annotation import KINDS
from weakseg.dataset import Entry
from weakseg.dataset_info import DatasetInfo
from weakseg.files import content_hash
from weakseg.grouping import Segments, segment_pixels
from weakseg.knn import GRID
from weakseg.retrieval.scene import Scene, mean_embedding
from weakseg.seeds import seed_map, seeds_at
from weakseg.segmenter import Segmenter
from weakseg.training.grid_maps import nearest

ITERATIONS = 10
"""Rounds of k-means (Ke, Hwang, Yu, ICLR 2021, "SPML")."""

WEAK_KINDS = tuple(kind for kind in KINDS if kind != "masks")
"""Kinds of label that weak classes come from by default."""

MARKS = ("scribbles", "points")
"""Kinds of label that lie on a few pixels of what they mean."""

MARGIN = 0.5
"""Surroundings in a segment's thumbnail, as a share of the longer side of its box."""


@dataclass(frozen=True, eq=False)
class ImageSegments:
    """The segments of one image, S of them.

    Attributes:
        name: of the image.
        file: the photograph, absolute; empty for an image that is no file.
        width, height: of the photograph, pixels.
        stamp: changes when the photograph or its labels do.
        tags: classes of the image's weak labels, the background left out, sorted.
        index: (h, w) uint16, the segment of each cell of the embedding's grid.
        segment: (S,) int32, the value in `index`, ascending.
        vectors: (S, D) float32, unit length: prototypes, or those with their scene.
        boxes: (S, 4) int32, the bounding box x0, y0, x1, y1 in pixels, half-open.
        areas: (S,) int64 pixels.
        predicted: (S,) object, name of the class that the model sees there.
        weak: (S,) object, name of the class that weak labels give, None where none does.
    """

    name: str
    file: str
    width: int
    height: int
    stamp: str
    tags: tuple[str, ...]
    index: NDArray[np.uint16]
    segment: NDArray[np.int32]
    vectors: NDArray[np.float32]
    boxes: NDArray[np.int32]
    areas: NDArray[np.int64]
    predicted: NDArray[np.object_]
    weak: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.segment)


def segments_of(
    model: Segmenter,
    entry: Entry,
    info: DatasetInfo | None = None,
    kinds: Collection[str] = WEAK_KINDS,
    features: Tensor | None = None,
    scene: Scene | None = None,
) -> ImageSegments:
    """The segments of an image: 12 x 12 k-means on embedding and location.

    Labels do not decide where segments lie, so that labelled and unlabelled images are cut alike.

    Args:
        model: embeds and classifies.
        entry: the image and its labels.
        info: classes of the labels; default: the model's.
        kinds: kinds of label that count.
        features: (C, h, w) of the photograph where they are known.
        scene: how the index counts scenes; None: not at all.

    Raises:
        InputError: the photograph cannot be read, or a label names no class of `info`.
    """
    found, mean = segments_and_mean(model, entry, info, kinds, features)
    return found if scene is None else in_scene(found, mean, scene)


def in_scene(segments: ImageSegments, mean: Tensor, scene: Scene) -> ImageSegments:
    """Segments whose vectors (S, D) are those of prototypes, as an index with scenes has them.

    Args:
        segments: from `segments_and_mean`.
        mean: (D,) likewise.
        scene: how the index counts scenes.
    """
    vectors = scene.beside(torch.from_numpy(segments.vectors), mean.cpu())
    return replace(segments, vectors=vectors.numpy())


@torch.inference_mode()
def segments_and_mean(
    model: Segmenter,
    entry: Entry,
    info: DatasetInfo | None = None,
    kinds: Collection[str] = WEAK_KINDS,
    features: Tensor | None = None,
) -> tuple[ImageSegments, Tensor]:
    """The segments of an image without its scene, and the mean embedding (D,) that tells it.

    Args and Raises: as of `segments_of`.
    """
    if features is None:
        image = entry.read_image()
        height, width = image.shape[:2]
        features = model.features(image)
    else:
        height, width = entry.height, entry.width
    embeddings = model.embed(features)
    found = grouped(embeddings)
    index = found.index[0].cpu().numpy()
    boxes, areas = _extent(index, len(found), (height, width))
    # In an image smaller than the grid some segments have no pixel.
    kept = np.flatnonzero(areas)
    info = info or model.info
    annotation = entry.annotation.restrict(kinds)
    segments = ImageSegments(
        name=entry.name,
        file=str(entry.image.resolve()) if isinstance(entry.image, Path) else "",
        width=width,
        height=height,
        stamp=stamp_of(entry, kinds),
        tags=tuple(sorted(annotation.labels - {info.background})),
        index=index.astype(np.uint16),
        segment=kept.astype(np.int32),
        vectors=found.prototypes.float().cpu().numpy()[kept],
        boxes=boxes[kept],
        areas=areas[kept],
        predicted=_predicted(model, features, found)[kept],
        weak=_weak(entry, info, kinds, index, len(found))[kept],
    )
    return segments, mean_embedding(embeddings)


def grouped(embeddings: Tensor) -> Segments:
    """Segments of one image's embeddings (D, h, w), as the index has them."""
    everywhere = torch.zeros(1, *embeddings.shape[1:], dtype=torch.int64, device=embeddings.device)
    return segment_pixels(
        embeddings[None], everywhere, everywhere, grid=GRID, iterations=ITERATIONS
    )


def stamp_of(entry: Entry, kinds: Collection[str] = WEAK_KINDS) -> str:
    """What changes when an image or its labels do; the file itself is not read.

    Raises:
        InputError: there is no such file.
    """
    labels = entry.annotation.restrict(kinds)
    parts: list[object] = [labels.to_dict()]
    for file in (entry.image, labels.mask):
        if isinstance(file, Path):
            try:
                status = file.stat()
            except OSError:
                parts.append("missing")  # reading it will say so
            else:
                parts.append([status.st_size, status.st_mtime_ns])
        elif file is not None:
            parts.append(np.asarray(file))
    return content_hash(*parts)


def thumbnails_of(boxes: NDArray[np.int32], width: int, height: int) -> NDArray[np.int32]:
    """The parts of a photograph that show its segments with their surroundings.

    Args:
        boxes: (S, 4) bounding boxes, x0, y0, x1, y1.
        width: of the photograph.
        height: of the photograph.

    Returns:
        (S, 4) x0, y0, x1, y1, half-open: squares where the photograph has room for them.
    """
    size = np.array([width, height])
    sides = boxes[:, 2:] - boxes[:, :2]
    wanted = np.rint(sides.max(1, keepdims=True) * (1 + 2 * MARGIN)).astype(np.int64)
    wanted = np.minimum(wanted, size)
    start = np.rint((boxes[:, :2] + boxes[:, 2:] - wanted) / 2).astype(np.int64)
    start = start.clip(0, size - wanted)
    return np.hstack([start, start + wanted]).astype(np.int32)


def _extent(
    index: NDArray[np.int64], count: int, size: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Boxes (S, 4) and areas (S,) in pixels of segments given on a grid.

    A pixel belongs to the cell that `weakseg.training.grid_maps.nearest` finds for it.
    """
    top, bottom = _cells(size[0], index.shape[0])
    left, right = _cells(size[1], index.shape[1])
    flat = index.ravel()
    rows, columns = (n.ravel() for n in np.indices(index.shape))
    pixels = (bottom - top)[rows] * (right - left)[columns]
    areas = np.bincount(flat, pixels, count).astype(np.int64)
    boxes = np.empty((count, 4), np.int32)
    boxes[:, :2] = max(size)
    boxes[:, 2:] = 0
    seen = pixels > 0
    flat, rows, columns = flat[seen], rows[seen], columns[seen]
    np.minimum.at(boxes[:, 0], flat, left[columns])
    np.minimum.at(boxes[:, 1], flat, top[rows])
    np.maximum.at(boxes[:, 2], flat, right[columns])
    np.maximum.at(boxes[:, 3], flat, bottom[rows])
    return boxes, areas


def _cells(pixels: int, cells: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """First pixel of each cell along one side, and the first after it."""
    cell = ((np.arange(pixels) + 0.5) * cells / pixels).astype(np.int64)
    edges = np.searchsorted(cell, np.arange(cells + 1)).astype(np.int32)
    return edges[:-1], edges[1:]


def _predicted(model: Segmenter, features: Tensor, found: Segments) -> NDArray[np.object_]:
    probabilities = model.scores(features).softmax(0).flatten(1)
    sums = probabilities.new_zeros(len(probabilities), len(found))
    sums.index_add_(1, found.index.flatten(), probabilities)
    names = np.array(model.info.classes, object)
    chosen: NDArray[np.object_] = names[sums.argmax(0).cpu().numpy()]
    return chosen


def _weak(
    entry: Entry,
    info: DatasetInfo,
    kinds: Collection[str],
    index: NDArray[np.int64],
    count: int,
) -> NDArray[np.object_]:
    """The class of each segment's labels, None where it has none.

    Strokes and points are sparse: the class of most cells that they label counts. What masks, boxes
    and tags say of the rest counts where it covers more than half of a segment: the background
    around a box says nothing of a segment that lies across its edge.
    """
    names = np.full(count, None, object)
    marks = [kind for kind in kinds if kind in MARKS]
    areas = [kind for kind in kinds if kind not in MARKS]
    for some, least in ((areas, 0.5), (marks, 0.0)):
        if not entry.annotation.restrict(some).kinds:
            continue
        seeds = seed_map(entry.annotation, info, (entry.height, entry.width), kinds=some)
        cells = nearest(seeds, index.shape)
        if some is marks:
            cells = seeds_at(seeds, index.shape, classes=info.unlabelled, ignore=info.ignore)
        votes = _votes(cells, info, index, count)
        known = votes.sum(1) > least * np.bincount(index.ravel(), minlength=count)
        names[known] = np.array(info.classes, object)[votes[known].argmax(1)]
    return names


def _votes(
    cells: NDArray[np.int32], info: DatasetInfo, index: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """(S, C) cells of each segment that a seed map on the grid gives each class."""
    classes = info.unlabelled
    labelled = (cells < classes) & (cells != info.ignore)
    votes = np.zeros((count, classes), np.int64)
    np.add.at(votes, (index[labelled], cells[labelled]), 1)
    return votes

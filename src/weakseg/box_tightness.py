"""A box is tight: its object reaches all of its sides.

After Lempitsky, Kohli, Rother, Sharp, "Image segmentation with a bounding box prior" (ICCV 2009).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weakseg.annotation import Annotation
from weakseg.dataset_info import DatasetInfo
from weakseg.seeds import box_window

BoxedClass = tuple[int, slice, slice]
"""A box: class index, rows and columns of the image."""

COVERED = 0.8
"""Share of a box's rows, and of its columns, that show its class. Not all: people draw boxes
somewhat too large, and objects have thin ends."""

_MOST = 10.0
"""A class's scores in its box are raised by no more than this."""


def boxed_classes(
    annotation: Annotation, info: DatasetInfo, size: tuple[int, int]
) -> list[BoxedClass]:
    """The boxes of an image of `size` = (H, W) as windows of it."""
    return [(info.index(box.label), *box_window(box.xyxy, size)) for box in annotation.boxes]


def tightened(
    scores: Tensor, classes: Sequence[int], boxes: Sequence[BoxedClass], size: tuple[int, int]
) -> Tensor:
    """Scores that give each box's class to some position of most of its rows and columns.

    Where the class is the likeliest in too few of them, its scores in the box are raised by one
    factor, the smallest that does.

    Args:
        scores: (C', h, w), 0 or more.
        classes: the class of each row of `scores`, those of the boxes among them.
        boxes: as of `boxed_classes`.
        size: (H, W) of the image.

    Returns:
        (C', h, w); `scores` itself where nothing is to be changed.
    """
    raised = scores
    for label, rows, columns in boxes:
        window = (_cells(rows, size[0], scores.shape[1]), _cells(columns, size[1], scores.shape[2]))
        row, inside = classes.index(label), scores[:, *window]
        others = torch.cat([inside[:row], inside[row + 1 :]])
        if not len(others):
            continue
        needed = others.amax(0) / inside[row].clamp_min(torch.finfo(scores.dtype).tiny)
        easiest = (needed.amin(along) for along in (0, 1))
        factor = max(float(e.quantile(COVERED, interpolation="higher")) for e in easiest)
        if factor > 1:
            raised = raised.clone() if raised is scores else raised
            higher = inside[row] * min(1.001 * factor, _MOST)
            raised[row, *window] = torch.maximum(raised[row, *window], higher)
    return raised


def _cells(pixels: slice, count: int, cells: int) -> slice:
    """The cells of a coarser axis that hold some of the pixels `pixels` of `count`."""
    return slice(pixels.start * cells // count, -(-pixels.stop * cells // count))

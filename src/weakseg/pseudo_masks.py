"""Pseudo-masks: class scores, spread by a random walk, sharpened by a dense CRF.

After Ke, Hwang, Yu (ICLR 2021, "SPML"); the walk is that of Ahn and Kwak (CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from weakseg.annotation import Annotation
from weakseg.box_tightness import BoxedClass, boxed_classes, tightened
from weakseg.crf import dense_crf
from weakseg.dataset_info import DatasetInfo
from weakseg.features import resized_size
from weakseg.propagate import random_walk

UNMARKED = 0.1
"""Scores of classes without a mark in the image are multiplied by this, where marks need not
name every class: such a class wins only where the classifier is sure of it."""

_PRESENT = 0.03
"""A class whose share of a position's scores is nowhere larger takes no part: neither walk nor CRF
could make it win. Of 21 classes some 3 are left, and the CRF takes half the time."""


_CRF_SIDE = 250
"""Longer side of the photograph that the CRF sees, half of what its published settings are for. It
takes less than half of the time, and the pseudo-masks are as good."""

_APPEARANCE_XY = 67 / 2
"""Standard deviation of the appearance kernel in pixels at that size (published: 67 at 500)."""


def class_prior(annotation: Annotation, info: DatasetInfo) -> NDArray[np.float32]:
    """What an image's labels say about which classes occur in it.

    Tags that are exhaustive (and boxes that are) exclude every other foreground class. Points
    and scribbles make the classes that they do not name unlikely, unless they name a single one:
    somebody who outlines a tumour in one image has not said that there is nothing else.

    Args:
        annotation: the labels that training uses.
        info: classes and rules of the data set.

    Returns:
        (C,) factors in 0..1 for class scores.
    """
    prior = np.ones(len(info.classes), np.float32)
    excluded: list[set[str]] = []
    if annotation.tags and info.tags_exhaustive:
        excluded.append(set(annotation.tags))
    if annotation.boxes and info.boxes_exhaustive:
        excluded.append({box.label for box in annotation.boxes})
    for named in excluded:
        named = named | annotation.labels
        if info.background is not None:
            named.add(info.background)
        prior[[name not in named for name in info.classes]] = 0
    marked = {p.label for p in annotation.points} | {s.label for s in annotation.scribbles}
    if not excluded and len(marked) > 1:
        prior[[name not in annotation.labels for name in info.classes]] = UNMARKED
    return prior


Places = Mapping[int, NDArray[np.bool_]]
"""Where some classes can be: (H, W) by class index; other classes can be everywhere."""


def class_places(annotation: Annotation, info: DatasetInfo, size: tuple[int, int]) -> Places:
    """Where the classes of an image's boxes can be: in the boxes, if the data set's are exhaustive.

    Args:
        annotation: the labels that training uses.
        info: classes and rules of the data set.
        size: (H, W) of the image.
    """
    places: dict[int, NDArray[np.bool_]] = {}
    boxes = boxed_classes(annotation, info, size) if info.boxes_exhaustive else []
    for label, rows, columns in boxes:
        places.setdefault(label, np.zeros(size, np.bool_))[rows, columns] = True
    return places


def pseudo_mask(
    image: NDArray[np.uint8],
    scores: Tensor,
    *,
    embeddings: Tensor | None = None,
    seeds: NDArray[np.int32] | None = None,
    places: Places | None = None,
    boxes: Sequence[BoxedClass] = (),
    crf: bool = True,
    steps: int = 64,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The mask that an image's class scores amount to.

    Args:
        image: (H, W, 3) uint8.
        scores: (C, h, w) class scores, 0 or more; all 0 for classes that cannot occur.
        embeddings: (D, h', w') that the random walk follows; None leaves it out.
        seeds: (H, W) seed map whose labelled pixels keep their class; None: no pixel does.
        places: where some classes can be, see `class_places`; they appear nowhere else.
        boxes: around objects, whose classes reach all their sides, see `tightened`.
        crf: sharpen with a dense CRF.
        steps: of the random walk.

    Returns:
        (H, W) class indices and (H, W) float32 probability of that class. Where all scores are 0,
        nothing is known of the image: its pixels are unlabelled (C), with probability 0. So are
        pixels where no class can be.
    """
    height, width = image.shape[:2]
    places = places or {}
    scores = _bounded(scores, places)
    if not scores.any():
        mask = np.full((height, width), len(scores), np.uint8)
        return _with_seeds(mask, np.zeros((height, width), np.float32), seeds, len(scores))
    present = torch.arange(len(scores), device=scores.device)
    boxed = present.new_tensor([label for label, _, _ in boxes])
    left = _contending(scores, len(scores)) | torch.isin(present, boxed)
    present, some = present[left], scores[left]
    if embeddings is not None:
        on_grid = _resize(some, embeddings.shape[-2:])
        some = random_walk(embeddings, on_grid, steps=steps)
        left = _contending(some, len(scores)) | torch.isin(present, boxed)
        present, some = present[left], some[left]
    some = tightened(some, present.tolist(), boxes, (height, width))
    if crf and len(present) > 1:
        some = _sharpened(image, some)
    some = _resize(some.float(), (height, width)).clamp_min(1e-8)
    for row, label in enumerate(present.tolist()):
        if label in places:
            some[row] *= torch.from_numpy(places[label]).to(some.device)
    best, index = (some / some.sum(0).clamp_min(1e-12)).max(0)
    mask = present[index].cpu().numpy().astype(np.uint8)
    confidence = best.cpu().numpy().astype(np.float32)
    mask[confidence == 0] = len(scores)
    return _with_seeds(mask, confidence, seeds, len(scores))


def _contending(scores: Tensor, classes: int) -> Tensor:
    """Which rows of `scores` (C', h, w) may still win somewhere, as they are: (C',) bool.

    Walking and resampling take means, in which no class's largest share of the sum grows; and the
    best of `classes` has a share of 1 / `classes` or more.
    """
    share = scores / scores.sum(0).clamp_min(torch.finfo(scores.dtype).tiny)
    return share.flatten(1).amax(1) >= min(_PRESENT, 1 / classes)


def _bounded(scores: Tensor, places: Places) -> Tensor:
    """Scores (C, h, w) that are 0 in cells where a class can nowhere be."""
    bounded = scores.clone()
    for index, place in places.items():
        where = torch.from_numpy(place)[None].to(scores)
        bounded[index] *= F.adaptive_max_pool2d(where, scores.shape[-2:])[0]
    return bounded


def _sharpened(image: NDArray[np.uint8], scores: Tensor) -> Tensor:
    """Scores (C', h, w) after a dense CRF on the photograph, made smaller: (C', H', W')."""
    full = image.shape[0], image.shape[1]
    height, width = resized_size(*full, min(_CRF_SIDE, max(full)))
    small = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
    scores = _resize(scores.float(), (height, width)).clamp_min(1e-8)
    return dense_crf(
        small,
        scores / scores.sum(0),
        appearance_xy=_APPEARANCE_XY,
    )


def _with_seeds(
    mask: NDArray[np.uint8],
    confidence: NDArray[np.float32],
    seeds: NDArray[np.int32] | None,
    classes: int,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    if seeds is not None:
        known = (seeds >= 0) & (seeds < classes)
        mask[known] = seeds[known]
        confidence[known] = 1
    return mask, confidence


def _resize(x: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x[None], tuple(size), mode="bilinear", align_corners=False)[0]

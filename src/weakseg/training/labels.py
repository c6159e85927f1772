"""The labels that a training run uses: kinds chosen, mixed, rasterised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.annotation import KINDS, UNPLACED, Annotation
from weakseg.box_tightness import BoxedClass, boxed_classes
from weakseg.dataset import Dataset, DatasetInfo, Entry
from weakseg.errors import InputError
from weakseg.pseudo_masks import Places, class_places, class_prior
from weakseg.seeds import ClassMaps, full_mask, seed_map
from weakseg.training.recipe import Recipe

CamOf = Callable[[int], ClassMaps | None]


def chosen_kinds(
    dataset: Dataset, asked: tuple[str, ...], *, in_turn: bool = False
) -> tuple[str, ...]:
    """The kinds of label to train on, in the order of `KINDS`.

    Args:
        dataset: its training part.
        asked: the kinds named in the recipe; empty: every weak kind that there is, and masks
            only where there is no other label.
        in_turn: keep the order in which they were asked for, in which images take turns.

    Raises:
        InputError: a kind that was asked for does not occur, or there is no label at all.
    """
    present = dataset.kinds(None)
    if not present:
        raise InputError(
            "no image to train on has a label",
            file=dataset.folder,
            rule="tags, boxes, points, scribbles or masks for some images",
        )
    missing = [kind for kind in asked if kind not in present]
    if missing:
        raise InputError(
            "--kinds names what the data set does not have",
            found=", ".join(missing),
            rule=f"one or more of {', '.join(present)}",
        )
    if asked and in_turn:
        return tuple(dict.fromkeys(asked))
    wanted = asked or tuple(kind for kind in present if kind != "masks") or present
    return tuple(kind for kind in KINDS if kind in wanted)


def no_cam(index: int) -> None:
    """Stands for class maps that are not there yet."""


class Labels:
    """Labels of the images of a training set, by position.

    Args:
        dataset: the training images.
        recipe: resolved; its `kinds` and `mix` choose what counts.

    Attributes:
        masked: (N,) share of each image's pixels that its mask labels, 0 where it has none.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe) -> None:
        self.dataset = dataset
        self.info: DatasetInfo = dataset.info
        self.recipe = recipe
        self.cam_of: CamOf = no_cam
        count, classes = len(dataset), len(self.info.classes)
        self.sizes = np.zeros((count, 2), np.int64)
        self.tags = torch.zeros(count, classes, dtype=torch.bool)
        self.priors = np.zeros((count, classes), np.float32)
        self.counts = {kind: {"images": 0, "labels": 0} for kind in recipe.kinds}
        self.masked = np.zeros(count, np.float32)
        for i, entry in enumerate(dataset):
            annotation = self.annotation(i, entry)
            self.sizes[i] = entry.height, entry.width
            for label in annotation.labels:
                self.tags[i, self.info.index(label)] = True
            if annotation.mask is not None:
                self._count_mask(i, full_mask(annotation.mask, self.info, self._size(i)))
            self.priors[i] = class_prior(annotation, self.info)
            for kind in annotation.kinds:
                self.counts[kind]["images"] += 1
                self.counts[kind]["labels"] += _marks(annotation, kind)

    def annotation(self, index: int, entry: Entry | None = None) -> Annotation:
        """The labels of image `index` that training uses."""
        entry = self.dataset[index] if entry is None else entry
        kinds = self.recipe.kinds
        if self.recipe.mix:
            kinds = (kinds[index % len(kinds)],)
        return entry.annotation.restrict(kinds)

    def seeds(self, index: int, *, fill_boxes: bool = False) -> NDArray[np.int32]:
        """(H, W) seed map of image `index`; boxes and tags count once `cam_of` is set."""
        annotation = self.annotation(index)
        return seed_map(
            annotation,
            self.info,
            self._size(index),
            cam=self.cam_of(index) if annotation.boxes or annotation.tags else None,
            point_radius=self.recipe.point_radius,
            foreground=self.recipe.foreground,
            background=self.recipe.background,
            fill_boxes=fill_boxes,
        )

    def prior(self, index: int) -> Tensor:
        """(C,) factors for class scores, see `class_prior`."""
        return torch.from_numpy(self.priors[index])

    def places(self, index: int) -> Places:
        """Where the classes of image `index` can be, see `class_places`."""
        return class_places(self.annotation(index), self.info, self._size(index))

    def boxes(self, index: int) -> list[BoxedClass]:
        """The boxes of image `index`, see `boxed_classes`."""
        return boxed_classes(self.annotation(index), self.info, self._size(index))

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) whether an image has any label."""
        return self.tags.any(1).numpy()

    @property
    def complete(self) -> bool:
        """Whether masks alone are trained on, and label all pixels that are not ignored.

        A hundredth may be without: the seams between polygons, say.
        """
        everywhere = self.counts.get("masks", {}).get("images") == len(self.dataset)
        return self.recipe.kinds == ("masks",) and everywhere and float(self.masked.mean()) >= 0.99

    @property
    def marked(self) -> bool:
        """Whether there are marks that say little of their objects' size: strokes in masks too."""
        shares = self.masked[self.masked > 0]
        strokes = len(shares) > 0 and float(np.median(shares)) < 0.5
        return strokes or not {"points", "scribbles"}.isdisjoint(self.recipe.kinds)

    def needs_cam(self) -> bool:
        """Whether some image has boxes or tags, which say that a class is there, not where."""
        return not UNPLACED.isdisjoint(self.recipe.kinds)

    def tag_weights(self) -> Tensor:
        """(N, C) weights with which a tagger learns that image i shows class c, or does not.

        That it does counts 1. That it does not counts as far as the image's labels exclude the
        class, see `class_prior`; where they do so in fewer images than name it, it counts 1 in
        every labelled image: a tagger that hardly sees a class lacking finds it everywhere.
        """
        unnamed = ~self.tags & self.tags.any(1, keepdim=True)
        excluded = unnamed * (1 - torch.from_numpy(self.priors))
        enough = excluded.sum(0) >= self.tags.sum(0)
        return self.tags + torch.where(enough, excluded, unnamed.float())

    def tagged_everywhere(self) -> list[str]:
        """Classes that tags cannot locate: no image lacks one, so nothing sets its pixels apart.

        None where other kinds of label are used too, or where under 10 images are tagged.
        """
        tags = self.tags[self.tags.any(1)]
        if self.recipe.kinds != ("tags",) or len(tags) < 10:
            return []
        return [
            name
            for name, count in zip(self.info.classes, tags.sum(0).tolist(), strict=True)
            if count >= 0.95 * len(tags) and name != self.info.background
        ]

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self.sizes[index].tolist()
        return height, width

    def _count_mask(self, index: int, mask: NDArray[np.int32]) -> None:
        """Note the classes of an image's mask and how much of it has one."""
        counts = np.bincount(mask[mask <= self.info.unlabelled], minlength=self.info.unlabelled + 1)
        self.tags[index, np.flatnonzero(counts[:-1])] = True
        self.masked[index] = 1 - counts[-1] / max(1, counts.sum())


def _marks(annotation: Annotation, kind: str) -> int:
    return 1 if kind == "masks" else len(getattr(annotation, kind))

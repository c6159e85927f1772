"""Training pixel classifiers on labelled positions drawn from all images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from weakseg.ahead import map_ahead
from weakseg.classifier import PixelClassifier, cross_entropy, favour_rare
from weakseg.errors import InputError
from weakseg.features import FeatureCache
from weakseg.models import EmbeddingHead
from weakseg.training.grid_maps import GridMaps
from weakseg.training.recipe import Recipe

PIXELS = 1024
"""Pixels in a training batch."""

LR = 1e-3

SMOOTHING, FAVOUR = 0.1, 0.1
"""Of the last classifier, which predicts: smoothing of its labels, and strength of `favour_rare`.
Those before it give pseudo-masks their probabilities and have neither."""


class LabelledPixels:
    """Draws labelled positions: an image at random, then a labelled position of it.

    Args:
        features: of the training images.
        masks: labels on the same grids; values of `classes` and above do not count.
        context: (N, channels) the mean features of each image.
        classes: C.

    Raises:
        InputError: no position is labelled.
    """

    def __init__(
        self, features: FeatureCache, masks: GridMaps, context: Tensor, classes: int
    ) -> None:
        self.features, self.masks, self.context = features, masks, context
        self.classes = classes
        labelled = np.flatnonzero(masks.values < classes)
        if len(labelled) == 0:
            raise InputError(
                "no pixel of the training images has a label",
                rule="points, scribbles or masks in some images, or boxes and tags whose classes "
                "can be found",
            )
        self.labelled = labelled
        self.first_row = features.first_rows()
        # Positions are in order, image after image; a number for each would fill the memory.
        first = np.searchsorted(labelled, masks.offsets)
        count = np.diff(first)
        self.images = np.flatnonzero(count)
        self.first, self.count = first[self.images], count[self.images]

    @property
    def shares(self) -> Tensor:
        """(C,) float32 shares of the classes in what is drawn."""
        found = np.zeros(self.classes)
        for first, count in zip(self.first, self.count, strict=True):
            values = self.masks.values[self.labelled[first : first + count]]
            found += np.bincount(values, minlength=self.classes) / count
        return torch.from_numpy((found / len(self.images)).astype(np.float32))

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features (size, C, 1, 1) float32, context (size, C) and classes (size, 1, 1)."""
        which = rng.integers(0, len(self.images), size)
        which.sort()  # reads of one image lie together
        chosen = self.labelled[self.first[which] + rng.integers(0, self.count[which])]
        image = self.images[which]
        place = chosen - self.masks.offsets[image]
        rows = self.features.rows(self.first_row[image] + place)
        labels = torch.from_numpy(self.masks.values[chosen].astype(np.int64))
        return (
            torch.from_numpy(rows).float()[:, :, None, None],
            self.context.index_select(0, torch.from_numpy(image)),
            labels[:, None, None],
        )


def train_classifier(
    classifier: PixelClassifier,
    pixels: LabelledPixels,
    recipe: Recipe,
    *,
    head: EmbeddingHead | None,
    fabric: Fabric,
    log: Callable[[int, dict[str, float]], None],
    seed: int = 0,
    last: bool = False,
) -> PixelClassifier:
    """Train a classifier with cross-entropy on labelled positions.

    Args:
        classifier: new, on the CPU or the fabric's device.
        pixels: where they come from.
        recipe: resolved; `classifier_steps` and `weight_decay` count.
        head: gives the embeddings that the classifier reads; None where it reads none.
        fabric: device and precision.
        log: called with step and losses.
        seed: of the drawing.
        last: it predicts: with smooth labels, and unsure pixels rather go to rare classes.

    Returns:
        The classifier, in eval mode.
    """
    classes = classifier.out.out_features
    steps = recipe.classifier_steps
    device = fabric.device
    classifier = classifier.to(device).train()
    optimizer = torch.optim.AdamW(
        classifier.parameters(), LR, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    rng = np.random.default_rng([recipe.seed, seed])
    # The next positions are read, by one thread in order, while a step computes.
    draws = map_ahead(lambda step: pixels.draw(rng, PIXELS), range(steps), share=1)
    for step, drawn in enumerate(draws):
        features, context, labels = (t.to(device) for t in drawn)
        with fabric.autocast():
            with torch.no_grad():
                embeddings = None if head is None else head(features)
            scores = classifier(features, context, embeddings)
        loss = cross_entropy(scores, labels, classes, SMOOTHING if last else 0.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        log(step + 1, {"cross_entropy": float(loss.detach())})
    if last:
        favour_rare(classifier, pixels.shares, FAVOUR)
    return classifier.eval()

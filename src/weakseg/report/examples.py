"""The examples of a report: what a run made of some images, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from weakseg.dataset import Dataset, DatasetInfo
from weakseg.grouping import segment_pixels
from weakseg.images import read_mask
from weakseg.report.pictures import (
    Picture,
    class_colours,
    draw_annotation,
    draw_boundaries,
    draw_seeds,
    mosaic,
    overlay,
    pca_colours,
    shrink,
)
from weakseg.seeds import seeds_at
from weakseg.segmenter import STRIDE, Segmenter
from weakseg.training import Fitted
from weakseg.training.grid_maps import nearest

SIDE = 480
"""Pixels on the longer side of a picture."""

GRID = (12, 12)
"""k-means cells over a whole image: about as dense as in training, which sees crops."""

METHODS = {"weakseg": "weakseg", "cross_entropy": "cross-entropy"}
"""Methods by their names in `results.json`, and as the report calls them."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture: what it is called, the picture, a remark beneath."""

    title: str
    picture: Picture
    note: str = ""


@dataclass(frozen=True, eq=False)
class Example:
    """The pictures of one image.

    Attributes:
        name: of the image.
        shown: its pictures, in the order of the method.
        classes: indices of the classes on them.
        worst: whether it was picked for being among the worst.
    """

    name: str
    shown: tuple[Shown, ...]
    classes: frozenset[int]
    worst: bool = False


def training_examples(fitted: Fitted, count: int) -> list[Example]:
    """What the run made of some training images, from labels to prediction."""
    chosen = choose_training(fitted, count)
    made = [_training_example(fitted, index) for index in chosen]
    colours = pca_colours([embedding.numpy() for _, embedding in made])
    examples = []
    for (example, _), colour in zip(made, colours, strict=True):
        height, width = example.shown[0].picture.shape[:2]
        smooth = Image.fromarray(colour).resize((width, height), Image.Resampling.BICUBIC)
        shown = list(example.shown)
        shown.insert(4, Shown("Embedding", np.asarray(smooth)))
        examples.append(replace(example, shown=tuple(shown)))
    return examples


def choose_training(fitted: Fitted, count: int) -> list[int]:
    """Labelled training images at random, every combination of kinds of label before repeats."""
    labels = fitted.job.labels
    order = np.random.default_rng(fitted.job.recipe.seed).permutation(len(labels.dataset))
    seen: dict[frozenset[str], int] = {}
    ranked = []
    # A look at a few hundred annotations is enough, and quick in a data set of a million.
    for place, index in enumerate(order[:500]):
        kinds = frozenset(labels.annotation(int(index)).kinds)
        if kinds:
            seen[kinds] = seen.get(kinds, 0) + 1
            ranked.append((seen[kinds], place, int(index)))
    return [index for _, _, index in sorted(ranked)[:count]]


def _training_example(fitted: Fitted, index: int) -> tuple[Example, Tensor]:
    """All pictures but the embedding's, and the embedding (D, h, w)."""
    labels, info = fitted.job.labels, fitted.job.labels.info
    entry = labels.dataset[index]
    annotation = labels.annotation(index, entry)
    image = entry.read_image()
    small = shrink(image, SIDE)
    features = fitted.segmenter.features(image)
    seeds, regions = labels.seeds(index), fitted.regions(index)
    embedding = _embed(fitted, features)
    segments = _segments(fitted, embedding, seeds, regions)
    shown = [
        Shown("Labels", draw_annotation(image, annotation, info, side=SIDE)),
        Shown("Seeds", draw_seeds(small, nearest(seeds, small.shape[:2]), info)),
        Shown("Regions", draw_boundaries(small, nearest(regions, small.shape[:2]))),
        Shown("Segments", _draw_segments(small, segments)),
    ]
    masks: list[tuple[str, NDArray[np.uint8]]] = []
    if fitted.pseudo_masks is not None and labels.labelled[index]:
        masks.append(("Pseudo-mask", read_mask(fitted.pseudo_masks / f"{index:06d}.png")))
    prediction = fitted.segmenter.predict_features(features, image.shape[:2]).mask
    masks.append(("Prediction", prediction))
    if entry.mask is not None:
        masks.append(("Truth", entry.read_mask()))
    colours = class_colours(info)
    for title, mask in masks:
        tiny = nearest(mask, small.shape[:2])
        note = "" if title == "Truth" or entry.mask is None else _right(mask, masks[-1][1], info)
        shown.append(Shown(title, overlay(small, tiny, colours), note))
    classes = _classes([seeds, *(mask for _, mask in masks)], len(info.classes))
    named = frozenset(info.index(label) for label in annotation.labels)
    return Example(entry.name, tuple(shown), classes | named), embedding.cpu()


@torch.inference_mode()
def _embed(fitted: Fitted, features: Tensor) -> Tensor:
    """Embeddings (D, h, w) on the grid of the training."""
    finer = STRIDE // fitted.job.recipe.embedding_stride
    size = [n * finer for n in features.shape[-2:]]
    embeddings: Tensor = fitted.segmenter.head(features[None], size)[0]
    return embeddings


def _segments(
    fitted: Fitted, embedding: Tensor, seeds: NDArray[np.int32], regions: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Segments (h, w) as training forms them, -1 where ignored."""
    info = fitted.job.labels.info
    size = embedding.shape[1], embedding.shape[2]
    on_grid = seeds_at(seeds, size, classes=info.unlabelled, ignore=info.ignore)
    maps = [torch.from_numpy(m.astype(np.int64))[None] for m in (on_grid, nearest(regions, size))]
    found = segment_pixels(
        embedding.cpu()[None], *maps, grid=GRID, iterations=10, ignore_index=info.ignore
    )
    return np.asarray(found.index[0].numpy())


def _draw_segments(image: Picture, segments: NDArray[np.int64]) -> Picture:
    full = nearest(segments, image.shape[:2])
    return draw_boundaries(mosaic(image, full), full, 0.35)


def measured_examples(runs: dict[str, Fitted], count: int, worst: int) -> list[Example]:
    """Predictions on measured images: `count` at random, then the `worst`.

    Args:
        runs: runs that were measured on the same images.
        count: of images drawn at random.
        worst: of images with the smallest share of pixels right, over all runs.
    """
    first = next(iter(runs.values()))
    dataset = first.evaluated
    if dataset is None:
        return []
    accuracy = np.mean([fitted.accuracy["weakseg"] for fitted in runs.values()], axis=0)
    order = np.random.default_rng(first.job.recipe.seed).permutation(len(dataset))
    drawn = [int(index) for index in order[:count]]
    rest = [int(index) for index in np.argsort(accuracy, kind="stable") if index not in drawn]
    return [
        *(_measured_example(runs, dataset, index, False) for index in drawn),
        *(_measured_example(runs, dataset, index, True) for index in rest[:worst]),
    ]


def _measured_example(
    runs: dict[str, Fitted], dataset: Dataset, index: int, worst: bool
) -> Example:
    entry, info = dataset[index], dataset.info
    image, truth = entry.read_image(), entry.read_mask()
    small, colours = shrink(image, SIDE), class_colours(info)
    masks = [("Truth", "", truth)]
    for name, method, model, fitted in _models(runs):
        mask = model.predict_features(model.features(image), truth.shape).mask
        masks.append((name, f"{100 * fitted.accuracy[method][index]:.0f} % right", mask))
    shown = [Shown("Image", small)]
    for title, note, mask in masks:
        shown.append(Shown(title, overlay(small, nearest(mask, small.shape[:2]), colours), note))
    classes = _classes([mask for _, _, mask in masks], len(info.classes))
    return Example(entry.name, tuple(shown), classes, worst)


def _models(runs: dict[str, Fitted]) -> list[tuple[str, str, Segmenter, Fitted]]:
    """Title, method, model and run of each prediction: of one run, the other methods too."""
    if len(runs) > 1:
        return [(name, "weakseg", fitted.segmenter, fitted) for name, fitted in runs.items()]
    (fitted,) = runs.values()
    return [
        (METHODS.get(method, method), method, model, fitted)
        for method, model in fitted.models.items()
    ]


def _right(mask: NDArray[np.uint8], truth: NDArray[np.uint8], info: DatasetInfo) -> str:
    counted = truth < len(info.classes)
    return f"{100 * (mask == truth)[counted].mean():.0f} % right" if counted.any() else ""


def same_images(runs: Sequence[Fitted]) -> bool:
    """Whether the runs were measured on the same images."""
    names = {
        tuple(entry.name for entry in fitted.evaluated) if fitted.evaluated else ()
        for fitted in runs
    }
    return len(names) == 1


def _classes(masks: Sequence[NDArray[np.integer]], classes: int) -> frozenset[int]:
    values = {int(v) for mask in masks for v in np.unique(mask)}
    return frozenset(v for v in values if v < classes)

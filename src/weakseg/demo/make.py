"""The demo data set."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from weakseg.annotation import Annotation
from weakseg.dataset import Dataset, DatasetInfo, DatasetWriter
from weakseg.demo.labels import simulate_labels
from weakseg.demo.photographs import SPLITS, read_materials
from weakseg.demo.scenes import CLASSES, Scene, compose_scene

COUNTS = {"train": 60, "val": 30}
"""Scenes in each split."""

INFO = DatasetInfo(
    "weakseg-demo", CLASSES, background="background", boxes_exhaustive=True, tags_exhaustive=True
)


def make_demo_dataset(
    folder: str | os.PathLike[str], *, seed: int = 0, overwrite: bool = False
) -> Dataset:
    """Write the demo data set to a folder, in the native format.

    60 training and 30 validation scenes of 256 x 208 pixels, composed of photographs that come
    inside the scikit-image wheel, with exact masks; every training scene has tags, boxes, points
    and scribbles too. No validation scene shares a source pixel with a training scene. The same
    seed gives the same data set.

    Args:
        folder: the data set's folder; made if missing.
        seed: decides everything.
        overwrite: replace a data set that is already there.

    Raises:
        InputError: a data set is there already, or writing fails.
    """
    with DatasetWriter(folder, INFO, overwrite=overwrite) as writer:
        for split in SPLITS:
            for i, (scene, labels) in enumerate(demo_scenes(split, seed=seed)):
                name = f"{split}_{i:03d}"
                writer.add(scene.image, labels, name=name, mask=scene.mask, split=split)
    return Dataset.open(folder)


def demo_scenes(split: str, *, seed: int = 0) -> Iterator[tuple[Scene, Annotation]]:
    """Yield the scenes of one split with their weak labels (none for `val`).

    Args:
        split: `train` or `val`.
        seed: decides everything; the scenes of a seed are the same whichever are taken.
    """
    materials = read_materials(split)
    for i in range(COUNTS[split]):
        rng = np.random.default_rng([seed, SPLITS.index(split), i])
        scene = compose_scene(materials, _choose_labels(i, rng), rng)
        labels = Annotation()
        if split == "train":
            labels = simulate_labels(scene.mask, scene.objects, CLASSES, rng)
        yield scene, labels


def _choose_labels(i: int, rng: np.random.Generator) -> list[int]:
    """One to five objects of one to three classes; the first goes through all classes in turn."""
    first = 1 + i % (len(CLASSES) - 1)
    others = [label for label in range(1, len(CLASSES)) if label != first]
    chosen = [first, *rng.choice(others, rng.integers(0, 3), replace=False).tolist()]
    return [*chosen, *rng.choice(chosen, rng.integers(0, 3)).tolist()]

"""Small scenes with every kind of label, in memory, and a quick recipe for them."""

from dataclasses import replace

import numpy as np

from weakseg.annotation import Annotation, Box, Point, Scribble
from weakseg.dataset import Dataset
from weakseg.training.recipe import Recipe

CLASSES = ("background", "disc", "square")

QUICK = Recipe(
    kinds=("points",),
    device="cpu",
    regime="frozen",
    long_side=200,
    steps=30,
    classifier_steps=100,
    rounds=1,
    batch=4,
    crop=8,
)
QUICK_MASKS = replace(QUICK, kinds=("masks",))


def picture(rng, height=128, width=160, objects=("disc", "square")):
    """A noisy scene with a red disc and a green square (or one of them), and its mask."""
    image = rng.integers(90, 130, (height, width, 3)).astype(np.float64)
    mask = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[:height, :width]
    cy, cx = (int(v) for v in (rng.integers(32, height - 32), rng.integers(28, width // 2 - 12)))
    disc = (y - cy) ** 2 + (x - cx) ** 2 < 23**2
    top, left = (
        int(rng.integers(a, b)) for a, b in ((6, height - 50), (width // 2 + 4, width - 50))
    )
    square = (y >= top) & (y < top + 44) & (x >= left) & (x < left + 44)
    if "disc" in objects:
        image[disc], mask[disc] = (200, 60, 60), 1
    if "square" in objects:
        image[square], mask[square] = (50, 190, 70), 2
    image += rng.normal(0, 12, image.shape)
    labels = Annotation(
        tags=objects,
        boxes=(
            Box("disc", (cx - 23, cy - 23, cx + 24, cy + 24)),
            Box("square", (left, top, left + 44, top + 44)),
        ),
        points=(
            Point("disc", (cx, cy)),
            Point("square", (left + 22, top + 22)),
            Point("background", (2, 2)),
        ),
        scribbles=(
            Scribble("disc", ((cx - 8, cy), (cx + 8, cy))),
            Scribble("square", ((left + 8, top + 16), (left + 32, top + 16))),
            Scribble("background", ((4, 2), (width - 6, 2))),
        ),
    )
    seen = {"background", *objects}
    marks = {
        kind: tuple(mark for mark in getattr(labels, kind) if mark.label in seen)
        for kind in ("boxes", "points", "scribbles")
    }
    return image.clip(0, 255).astype(np.uint8), replace(labels, **marks), mask


def scenes(train=8, val=4, seed=0, masked=0):
    """A data set in memory, all weak kinds on the training images, masks on the others.

    The first `masked` training images have masks too.
    """
    rng = np.random.default_rng(seed)
    contents = (("disc", "square"), ("disc",), ("square",))
    made = [picture(rng, objects=contents[i % 3]) for i in range(train + val)]
    return Dataset.from_arrays(
        [image for image, _, _ in made],
        [labels if i < train else None for i, (_, labels, _) in enumerate(made)],
        CLASSES,
        background="background",
        masks=[None if masked <= i < train else mask for i, (_, _, mask) in enumerate(made)],
        splits=["train"] * train + ["val"] * val,
        boxes_exhaustive=True,
    )

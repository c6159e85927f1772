"""What several test modules share."""

import os
from pathlib import Path

import numpy as np
import pytest

from weakseg.annotation import Annotation, Box, Point, Scribble
from weakseg.dataset import Dataset

CLASSES = ("background", "disc", "square")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Tests neither use nor fill the user's cache."""
    os.environ["WEAKSEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def voc_subset():
    """The research photographs, where they are."""
    place = Path(os.environ.get("WEAKSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (place / "voc-subset").is_dir():
        pytest.skip("needs the voc-subset photographs (set WEAKSEG_DATA)")
    return place / "voc-subset"


def picture(rng, height=64, width=80):
    """A noisy scene with a red disc and a green square, and its mask."""
    image = rng.integers(90, 130, (height, width, 3)).astype(np.float64)
    mask = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.integers(16, height - 16), rng.integers(14, width // 2 - 6)
    disc = (y - cy) ** 2 + (x - cx) ** 2 < 11**2
    top, left = rng.integers(4, height - 26), rng.integers(width // 2 + 2, width - 26)
    square = (y >= top) & (y < top + 22) & (x >= left) & (x < left + 22)
    image[disc], image[square] = (200, 60, 60), (50, 190, 70)
    mask[disc], mask[square] = 1, 2
    image += rng.normal(0, 12, image.shape)
    labels = Annotation(
        tags=("disc", "square"),
        boxes=(
            Box("disc", (cx - 11, cy - 11, cx + 12, cy + 12)),
            Box("square", (left, top, left + 22, top + 22)),
        ),
        points=(
            Point("disc", (int(cx), int(cy))),
            Point("square", (int(left + 11), int(top + 11))),
            Point("background", (1, 1)),
        ),
        scribbles=(
            Scribble("disc", ((int(cx) - 4, int(cy)), (int(cx) + 4, int(cy)))),
            Scribble("square", ((int(left) + 4, int(top) + 8), (int(left) + 16, int(top) + 8))),
            Scribble("background", ((2, 1), (width - 3, 1))),
        ),
    )
    return image.clip(0, 255).astype(np.uint8), labels, mask


def scenes(train=8, val=4, seed=0):
    """A data set in memory, all weak kinds on the training images, masks on the others."""
    rng = np.random.default_rng(seed)
    made = [picture(rng) for _ in range(train + val)]
    return Dataset.from_arrays(
        [image for image, _, _ in made],
        [labels if i < train else None for i, (_, labels, _) in enumerate(made)],
        CLASSES,
        background="background",
        masks=[None if i < train else mask for i, (_, _, mask) in enumerate(made)],
        splits=["train"] * train + ["val"] * val,
        boxes_exhaustive=True,
    )


@pytest.fixture
def small_dataset():
    """See `scenes`."""
    return scenes()

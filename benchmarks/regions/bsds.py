"""BSDS500 as it lies in ../shared/data/bsds500: photographs and their human segmentations."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

DATA = Path(os.environ.get("WEAKSEG_DATA", Path(__file__).parents[3] / "shared" / "data"))


def identifiers(*splits, root=DATA / "bsds500"):
    """The (split, id) pairs of some of the splits train, val and test, sorted."""
    return [
        (split, path.stem)
        for split in splits
        for path in sorted((root / "images" / split).glob("*.jpg"))
    ]


def photograph(split, name, root=DATA / "bsds500"):
    """(H, W, 3) uint8."""
    return np.asarray(Image.open(root / "images" / split / f"{name}.jpg").convert("RGB"))


def segmentations(split, name, root=DATA / "bsds500"):
    """(K, H, W) int64: one segmentation a person, each numbered from 0 without gaps."""
    with np.load(root / "segmentations" / split / f"{name}.npz") as archive:
        maps = archive["segmentations"]
    return np.stack(
        [np.unique(one, return_inverse=True)[1].reshape(one.shape) for one in maps]
    ).astype(np.int64)


def boundary_share(maps, blur=1.0):
    """(H, W) float32: which share of the people drew a boundary at a pixel, give or take a little.

    People agree on a boundary but not to the pixel: what one person drew counts, at a distance of
    d pixels, exp(-d^2 / (2 blur^2)). A boundary runs between two pixels, half a pixel from both.
    """
    share = np.zeros(maps.shape[1:], np.float32)
    for one in maps:
        edge = np.zeros(one.shape, bool)
        right, below = one[:, :-1] != one[:, 1:], one[:-1] != one[1:]
        edge[:, :-1] |= right
        edge[:, 1:] |= right
        edge[:-1] |= below
        edge[1:] |= below
        if edge.any():
            distance = distance_transform_edt(~edge) + 0.5
            share += np.exp(-(distance**2) / (2 * blur**2))
    return share / len(maps)

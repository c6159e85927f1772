"""What to label next: images that show most of what no label is near to.

Each segment weighs its share of the image times its distance from the nearest labelled
prototype. Segments are clustered, and images are chosen one by one so that the sum over clusters
of the square root of the weight shown grows most: more of the same counts less and less, so that
proposals differ (a concave function over sums, as in Lin and Bilmes, "A class of submodular
functions for document summarization", ACL 2011).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from weakseg.grouping.kmeans import spherical_kmeans

SMALLEST = 8
"""Segments that a cluster has on average, at least."""

ROUNDS, SEGMENTS, LARGEST, SEED = 10, 3, 100_000, 0
"""Rounds of k-means; segments named for each image; segments that clusters are made from."""


class Proposal(NamedTuple):
    """An image to label.

    Attributes:
        image: its code.
        gain: what it adds to those before it.
        rows: the segments that add most.
        distance: of the first of them from the nearest labelled prototype, 1 - cosine.
    """

    image: int
    gain: float
    rows: tuple[int, ...]
    distance: float


def label_next(
    vectors: NDArray[np.float32],
    areas: NDArray[np.integer],
    images: NDArray[np.integer],
    labelled: NDArray[np.bool_],
    top: int,
) -> list[Proposal]:
    """Images to label next, the most useful first.

    Args:
        vectors: (n, D) prototypes of all segments, unit length.
        areas: (n,) pixels.
        images: (n,) image codes.
        labelled: (n,) whether a label lies on the segment.
        top: how many images.

    Returns:
        Images without any label, `top` of them or all; where every image has one, any images.
    """
    bare = ~np.isin(images, images[labelled])
    rows = np.flatnonzero(bare if bare.any() else ~labelled)
    if len(rows) == 0:
        return []
    distance = 1 - nearest_cosine(vectors[rows], vectors[labelled])
    totals = np.bincount(images, areas)
    weight = (areas[rows] / totals[images[rows]] * distance).astype(np.float64)
    cluster = clustered(vectors[rows], weight, min(top, len(rows) // SMALLEST))
    codes, owner = np.unique(images[rows], return_inverse=True)
    shown = np.zeros((len(codes), int(cluster.max()) + 1))
    np.add.at(shown, (owner, cluster), weight)
    proposals = []
    for image, gain, gains in greedy(shown, top):
        mine = np.flatnonzero(owner == image)
        # A cluster's gain is its segments', in proportion to their weights.
        share = gains[cluster[mine]] * weight[mine] / shown[image, cluster[mine]].clip(1e-12)
        best = mine[np.argsort(-share, kind="stable")[:SEGMENTS]]
        chosen = tuple(int(row) for row in rows[best])
        proposals.append(Proposal(int(codes[image]), gain, chosen, float(distance[best[0]])))
    return proposals


def greedy(shown: NDArray[np.float64], top: int) -> list[tuple[int, float, NDArray[np.float64]]]:
    """Rows chosen one by one so that the sum of square roots of column sums grows most.

    Args:
        shown: (images, clusters), 0 or more.
        top: how many.

    Returns:
        Row, gain, and gain by column, of each.
    """
    have = np.zeros(shown.shape[1])
    left = np.ones(len(shown), bool)
    chosen = []
    for _ in range(min(top, len(shown))):
        gains = (np.sqrt(have + shown) - np.sqrt(have)).sum(1)
        image = int(np.where(left, gains, -1).argmax())
        parts = np.sqrt(have + shown[image]) - np.sqrt(have)
        chosen.append((image, float(gains[image]), parts))
        have += shown[image]
        left[image] = False
    return chosen


def nearest_cosine(
    vectors: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n,) cosine of each vector with the nearest of the others, 0 at least."""
    best = torch.zeros(len(vectors))
    bank = torch.from_numpy(others)
    for start in range(0, len(vectors) if len(others) else 0, 4096):
        part = torch.from_numpy(vectors[start : start + 4096])
        best[start : start + 4096] = (part @ bank.T).amax(1).clamp(0, 1)
    return best.numpy()


def clustered(
    vectors: NDArray[np.float32], weight: NDArray[np.float64], clusters: int
) -> NDArray[np.int64]:
    """Spherical k-means, started from rows far apart; the cluster of each row."""
    rng = np.random.default_rng(SEED)
    few = np.sort(rng.permutation(len(vectors))[:LARGEST])
    rows = torch.from_numpy(vectors[few])
    centres = rows[_far_apart(rows, weight[few], max(1, clusters), rng)]
    label = spherical_kmeans(
        rows[None],
        torch.ones(1, len(rows), dtype=torch.bool),
        _nearest_centre(rows, centres),
        len(centres),
        ROUNDS,
    )[0]
    sums = torch.zeros_like(centres).index_add_(0, label, rows)
    return _nearest_centre(torch.from_numpy(vectors), normalize(sums, dim=1)).numpy()


def _far_apart(
    rows: torch.Tensor, weight: NDArray[np.float64], count: int, rng: np.random.Generator
) -> list[int]:
    """Rows drawn by weight times distance from those drawn before (k-means++)."""
    distance = np.ones(len(rows))
    drawn: list[int] = []
    while len(drawn) < count:
        chance = weight * distance + 1e-12
        drawn.append(int(rng.choice(len(rows), p=chance / chance.sum())))
        distance = np.minimum(distance, 1 - (rows @ rows[drawn[-1]]).numpy()).clip(0)
    return drawn


def _nearest_centre(rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    starts = range(0, len(rows), 8192)
    return torch.cat([(rows[s : s + 8192] @ centres.T).argmax(1) for s in starts])

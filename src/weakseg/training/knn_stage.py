"""Class scores of training images by the kNN vote, instead of a classifier's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.grouping import Segments, segment_pixels
from weakseg.knn import GRID, knn_vote
from weakseg.training.batches import RegionsOf
from weakseg.training.embedding import ITERATIONS
from weakseg.training.grid_maps import GridMaps, nearest
from weakseg.training.stages import Job, ScoresOf


@torch.inference_mode()
def knn_scores(
    job: Job, embeddings_of: Callable[[int], Tensor], seeds: GridMaps, regions: RegionsOf
) -> ScoresOf:
    """Scores (C, h, w) of training image i: the votes for each pixel's segment.

    Args:
        job: the run.
        embeddings_of: (D, h, w) of image i, on the grid of `seeds`.
        seeds: the weak labels that prototypes are taken from.
        regions: region map of image i.
    """
    info = job.labels.info
    classes = len(info.classes)

    def segments(index: int) -> Segments:
        return vote_segments(embeddings_of(index), seeds[index], regions(index), info.ignore)

    found = [segments(index) for index in range(len(job.dataset))]
    labelled = [s.seed < classes for s in found]
    bank = torch.cat([s.prototypes[mine] for s, mine in zip(found, labelled, strict=True)])
    labels = torch.cat([s.seed[mine] for s, mine in zip(found, labelled, strict=True)])
    del found

    def scores(index: int) -> Tensor:
        parts = segments(index)
        votes = knn_vote(parts.prototypes, bank, labels, classes)
        prior = job.labels.prior(index).to(votes.device)
        return per_pixel(parts, votes) * prior[:, None, None]

    return scores


def vote_segments(
    vectors: Tensor, seeds: NDArray[np.integer], regions: NDArray[np.integer], ignore: int
) -> Segments:
    """The segments of one image that vote or are voted on.

    Args:
        vectors: (D, h, w) embeddings.
        seeds: (h, w) seed map.
        regions: (H, W) region map, of any size.
        ignore: seed value of pixels that belong to no segment.
    """
    device = vectors.device
    return segment_pixels(
        vectors[None],
        torch.from_numpy(seeds.astype("int64")).to(device)[None],
        torch.from_numpy(nearest(regions, vectors.shape[-2:])).to(device)[None],
        grid=GRID,
        iterations=ITERATIONS,
        ignore_index=ignore,
    )


def per_pixel(segments: Segments, votes: Tensor) -> Tensor:
    """Votes (S, C) of one image's segments at each of its pixels, none where ignored: (C, h, w)."""
    index = segments.index[0]
    return (votes[index.clamp_min(0)] * (index >= 0)[..., None]).permute(2, 0, 1)

"""Classes of segments by a vote of the nearest labelled segments."""

from __future__ import annotations

import torch
from torch import Tensor

from weakseg.errors import InputError

NEIGHBOURS = 20
GRID = (12, 12)
"""k-means cells of segments at inference (Ke, Hwang, Yu, ICLR 2021, "SPML")."""

_PAIRS = 2**25
"""Similarities computed at a time: 128 MiB in float32."""


def knn_vote(
    prototypes: Tensor, labelled: Tensor, labels: Tensor, classes: int, neighbours: int = NEIGHBOURS
) -> Tensor:
    """Share of each class among the nearest labelled prototypes.

    Args:
        prototypes: (S, D) unit vectors to classify.
        labelled: (L, D) unit vectors of segments whose *weak* labels are known. Prototypes taken
            from full masks would make this a fully supervised classifier.
        labels: (L,) int64, 0..classes-1.
        classes: C.
        neighbours: how many vote; all if there are fewer.

    Returns:
        (S, C) float32, rows sum to 1.

    Raises:
        InputError: nothing is labelled.
    """
    if len(labelled) == 0:
        raise InputError("no labelled segment to vote", rule="one or more")
    count = min(neighbours, len(labelled))
    votes = torch.zeros(len(prototypes), classes, device=prototypes.device)
    step = max(1, _PAIRS // len(labelled))
    for start in range(0, len(prototypes), step):
        rows = slice(start, start + step)
        nearest = (prototypes[rows] @ labelled.T).topk(count, dim=1).indices
        ones = torch.full_like(nearest, 1 / count, dtype=votes.dtype)
        votes[rows].scatter_add_(1, labels[nearest], ones)
    return votes

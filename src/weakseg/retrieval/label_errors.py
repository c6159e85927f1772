"""Labelled segments whose neighbours disagree with their label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.retrieval.exact import BLOCK, exact_search

NEIGHBOURS = 20


class Doubt(NamedTuple):
    """A label that its neighbours contradict.

    Attributes:
        row: of the segment, in the arrays that were given.
        label: code of its class.
        instead: code of the class that most neighbours have.
        own, other: shares of the neighbours that have the one and the other.
    """

    row: int
    label: int
    instead: int
    own: float
    other: float


def label_errors(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    images: NDArray[np.integer],
    neighbours: int = NEIGHBOURS,
) -> list[Doubt]:
    """Labels that a vote of the nearest labelled segments of other images contradicts.

    Args:
        vectors: (n, D) prototypes of labelled segments, unit length.
        labels: (n,) class codes, 0 or more.
        images: (n,) image codes; an image does not vouch for itself.
        neighbours: how many vote.

    Returns:
        The doubtful ones, by how far the other class is ahead.
    """
    if len(labels) == 0:
        return []
    own_image = np.bincount(np.unique(images, return_inverse=True)[1]).max()
    count = min(len(labels), neighbours + int(own_image))
    doubts = []
    for start in range(0, len(labels), 2048):
        rows = np.arange(start, min(start + 2048, len(labels)))
        blocks = ((s, vectors[s : s + BLOCK], None) for s in range(0, len(labels), BLOCK))
        found, _ = exact_search(blocks, vectors[rows], count)
        for row, near in zip(rows.tolist(), found, strict=True):
            voters = near[(near >= 0) & (images[near] != images[row])][:neighbours]
            doubt = _vote(row, labels, voters)
            if doubt is not None:
                doubts.append(doubt)
    return sorted(doubts, key=lambda d: (d.own - d.other, d.row))


def _vote(row: int, labels: NDArray[np.integer], voters: NDArray[np.integer]) -> Doubt | None:
    if len(voters) == 0:
        return None
    shares = np.bincount(labels[voters]) / len(voters)
    instead, label = int(shares.argmax()), int(labels[row])
    own = float(shares[label]) if label < len(shares) else 0.0
    if shares[instead] <= own:
        return None
    return Doubt(row, label, instead, own, float(shares[instead]))

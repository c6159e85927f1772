"""Exact nearest neighbours by the dot product, block by block."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 65_536
"""Prototypes that are compared at a time: 16 MB of 64 dimensions."""

Block = tuple[int, NDArray[np.float32], NDArray[np.bool_] | None]
"""Number of the first row, the rows (n, D), and which of them count (n,); None: all."""


def exact_search(
    blocks: Iterable[Block], queries: NDArray[np.float32], top: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows with the largest dot products.

    Args:
        blocks: all rows, in ascending order.
        queries: (Q, D).
        top: how many of each.

    Returns:
        (Q, top) row numbers, the nearest first, of equally near ones the smaller number; -1 where
        there are no more. (Q, top) their dot products, -inf there.
    """
    rows = np.full((len(queries), top), -1, np.int64)
    best = np.full((len(queries), top), -np.inf, np.float32)
    wanted = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
    for start, block, counts in blocks:
        scores = (wanted @ torch.from_numpy(block).T).numpy()
        if counts is not None:
            scores[:, ~counts] = -np.inf
        # After the first block few rows beat what was found before: no need to sort it.
        bar = best[:, -1:]
        near = scores > bar
        if not np.isfinite(bar).all() and scores.shape[1] > top:
            near &= scores >= np.partition(scores, -top, axis=1)[:, -top, None]
        query, column = np.nonzero(near)
        ends = np.searchsorted(query, np.arange(len(queries) + 1))
        for q in np.flatnonzero(np.diff(ends)):
            mine = column[ends[q] : ends[q + 1]]
            found = np.concatenate([best[q], scores[q, mine]])
            numbers = np.concatenate([rows[q], mine + start])
            # A stable sort, and earlier rows come first: equally near ones stay in their order.
            order = np.argsort(-found, kind="stable")[:top]
            best[q], rows[q] = found[order], numbers[order]
    return rows, best

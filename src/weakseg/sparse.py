"""Sparse matrices by rows: what the CRF kernels and the walk on large grids are made of."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class SparseRows(NamedTuple):
    """A sparse matrix by rows: row r has `weight[start[r] : start[r + 1]]` at those `column`s."""

    start: Tensor  # (rows + 1,) int32 or int64
    column: Tensor  # (entries,) like start
    weight: Tensor  # (entries,) of the type of what it multiplies

    def times(self, dense: Tensor) -> Tensor:
        """Matrix times `dense` (columns, C) -> (rows, C)."""
        # A weighted embedding bag is exactly this product, and has the fastest CPU kernel for it in
        # torch and scipy (docs/performance.md).
        return embedding_bag(
            self.column,
            dense,
            self.start,
            mode="sum",
            per_sample_weights=self.weight,
            include_last_offset=True,
        )

    def repeated(self, times: int) -> "SparseRows":
        """The block-diagonal matrix of `times` copies of this square matrix."""
        rows, entries = len(self.start) - 1, len(self.column)
        copy = torch.arange(times, dtype=self.start.dtype, device=self.start.device)[:, None]
        return SparseRows(
            torch.cat([(self.start[:-1] + copy * entries).view(-1), self.start[-1:] * times]),
            (self.column + copy * rows).view(-1),
            self.weight.repeat(times),
        )

    def head(self, rows: int) -> "SparseRows":
        """The first `rows` rows."""
        entries = int(self.start[rows])
        return SparseRows(self.start[: rows + 1], self.column[:entries], self.weight[:entries])

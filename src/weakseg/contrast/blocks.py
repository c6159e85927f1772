"""Which prototypes a pixel is compared with, as rectangles of a sorted similarity matrix.

With pixels sorted by their group and prototypes by theirs, the positives of a relation are a few
rectangles, and pixel groups that are compared with the same prototype groups (those of one image,
say) form a block that no other prototype enters.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Range = tuple[int, int]


@dataclass(frozen=True)
class Block:
    """Pixels that are compared with the same prototypes.

    Attributes:
        rows: (n,) the pixels, sorted by group.
        columns: (m,) the prototypes they are compared with, sorted by group.
        positives: for each run of rows of one group, its rows and its positive columns.
    """

    rows: Tensor
    columns: Tensor
    positives: list[tuple[Range, list[Range]]]

    def rectangles(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Positive rectangles of the tile of rows start..stop, rows counted from start."""
        for (low, high), ranges in self.positives:
            if low < stop and start < high:
                rows = slice(max(low, start) - start, min(high, stop) - start)
                for first, last in ranges:
                    yield rows, slice(first, last)


@dataclass(frozen=True)
class Standing:
    """What a pixel's own segment is to it.

    Attributes:
        excluded: (N,) bool, own is one of several positives: it is left out.
        apart: (N,) bool, there is no positive and own is not compared: it counts all the same.
        out: (N,) bool, neither a positive nor an own segment: the pixel sits out.
    """

    excluded: Tensor
    apart: Tensor
    out: Tensor


def standing(own: Tensor, pixel_group: Tensor, prototype_group: Tensor, table: Tensor) -> Standing:
    """Tells from the groups alone how each pixel's own segment counts."""
    population = torch.bincount(prototype_group, minlength=table.shape[1])
    positives = ((table > 0) * population).sum(dim=1)[pixel_group]
    has_own = own >= 0
    if len(prototype_group) == 0:
        own_positive = torch.zeros_like(has_own)
    else:
        own_group = prototype_group[own.clamp(min=0)]
        own_positive = (table[pixel_group, own_group] > 0) & has_own
    none_other = positives - own_positive.long() == 0
    return Standing(
        excluded=own_positive & ~none_other,
        apart=none_other & has_own & ~own_positive,
        out=none_other & ~has_own,
    )


def blocks(pixel_group: Tensor, prototype_group: Tensor, table: Tensor) -> list[Block]:
    """Splits the comparison into blocks; pixels that are compared with nothing are in none."""
    device = pixel_group.device
    relation = table.cpu().numpy()
    row_count = torch.bincount(pixel_group, minlength=relation.shape[0]).cpu().numpy()
    column_count = torch.bincount(prototype_group, minlength=relation.shape[1]).cpu().numpy()
    compared = (relation != 0) & (column_count > 0)

    members: dict[bytes, list[int]] = {}
    for group in np.flatnonzero((row_count > 0) & compared.any(axis=1)):
        members.setdefault(compared[group].tobytes(), []).append(int(group))

    row_order = pixel_group.argsort(stable=True)
    column_order = prototype_group.argsort(stable=True)
    row_parts = torch.split(row_order, row_count.tolist())
    sorted_group = prototype_group[column_order]
    result = []
    for groups in members.values():
        inside = compared[groups[0]]
        columns = column_order[torch.from_numpy(inside).to(device)[sorted_group]]
        end = np.cumsum(np.where(inside, column_count, 0))
        begin = end - column_count
        ranges = _ranges((relation[groups] > 0) & inside, begin, end)
        last_row = np.cumsum(row_count[groups]).tolist()
        first_row = [0, *last_row[:-1]]
        positives = list(zip(zip(first_row, last_row, strict=True), ranges, strict=True))
        rows = torch.cat([row_parts[member] for member in groups])
        result.append(Block(rows, columns, positives))
    return result


def _ranges(
    positive: NDArray[np.bool_], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> list[list[Range]]:
    """Columns of the positive groups of each row of (rows, groups), neighbours joined."""
    result: list[list[Range]] = [[] for _ in positive]
    rows, groups = np.nonzero(positive)
    for row, first, last in zip(
        rows.tolist(), begin[groups].tolist(), end[groups].tolist(), strict=True
    ):
        ranges = result[row]
        if ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))
    return result

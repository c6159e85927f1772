"""Integer maps of many images, of their own sizes, in one flat array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class GridMaps:
    """Seeds, regions or pseudo-masks of a training set on the grid of the embeddings.

    Args:
        maps: (h, w) integer arrays, values in 0..65535.

    Raises:
        ValueError: other values.
    """

    def __init__(self, maps: Iterable[NDArray[np.integer]]) -> None:
        flat: list[NDArray[np.uint16]] = []
        sizes: list[tuple[int, int]] = []
        for one in maps:
            if one.size and not 0 <= one.min() <= one.max() <= np.iinfo(np.uint16).max:
                raise ValueError(f"values {one.min()}..{one.max()} do not fit into 16 bits")
            sizes.append((one.shape[0], one.shape[1]))
            flat.append(one.astype(np.uint16).reshape(-1))
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes.prod(1))])
        self.values = np.concatenate(flat) if flat else np.zeros(0, np.uint16)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        return self.values[self.offsets[index] : self.offsets[index + 1]].reshape(self.sizes[index])

    def crops(
        self, picks: Iterable[tuple[int, int, int]], height: int, width: int, fill: int
    ) -> Tensor:
        """Crops of several images, (B, height, width) int64; beyond the image it is `fill`.

        Args:
            picks: (index, top, left) of each, top and left 0 or more.
            height: of a crop.
            width: of a crop.
            fill: value outside the image.
        """
        picks = list(picks)
        batch = np.full((len(picks), height, width), fill, np.int64)
        for out, (index, top, left) in zip(batch, picks, strict=True):
            part = self[index][top : top + height, left : left + width]
            out[: part.shape[0], : part.shape[1]] = part
        return torch.from_numpy(batch)


def nearest(array: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """`array` (H, W) at the centres of the cells of a grid of `size` = (h, w)."""
    rows, columns = (
        ((np.arange(n) + 0.5) * full / n).astype(np.int64)
        for n, full in zip(size, array.shape, strict=True)
    )
    picked: NDArray[Any] = array[rows[:, None], columns]
    return picked


def renumbered(regions: NDArray[Any]) -> NDArray[np.int64]:
    """The same regions with numbers from 0 without gaps."""
    numbers: NDArray[np.int64] = np.unique(regions, return_inverse=True)[1]
    return numbers.reshape(regions.shape)

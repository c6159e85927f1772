"""Gaussian filter of an image by rows and columns: the smoothness kernel of the CRF."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from weakseg.sparse import SparseRows

_CUT = 4  # the kernel ends at this many standard deviations
_ENTRIES = 2**24  # of the sparse matrix along the rows; a larger image is filtered band by band


class Gaussian(NamedTuple):
    """weight D^-1/2 K D^-1/2 over the pixels of an image, with D the row sums of K."""

    down: SparseRows  # (H, H), along the columns of the image
    across: SparseRows  # (lines W, lines W), along `lines` of its rows
    width: int

    def filter(self, values: Tensor) -> Tensor:
        """Filter `values` (H W, C) float32, pixels in raster order -> (H W, C)."""
        channels = values.shape[1]
        values = self.down.times(values.view(-1, self.width * channels)).view(-1, channels)
        band = len(self.across.start) - 1
        if len(values) == band:
            return self.across.times(values)
        out = torch.empty_like(values)
        for first in range(0, len(values), band):
            part = values[first : first + band]
            out[first : first + band] = self.across.head(len(part)).times(part)
        return out


def build_gaussian(
    height: int, width: int, std: float, weight: float, device: torch.device
) -> Gaussian:
    """Build the filter for `std` in pixels."""
    down = _along_axis(height, std, device)
    across = _along_axis(width, std, device)
    lines = max(1, min(height, _ENTRIES // len(across.column)))
    return Gaussian(down._replace(weight=down.weight * weight), across.repeated(lines), width)


def _along_axis(size: int, std: float, device: torch.device) -> SparseRows:
    """The symmetrically normalised Gaussian along one axis, which is separable as the kernel is."""
    radius = min(size - 1, max(1, math.ceil(_CUT * std)))
    offset = torch.arange(-radius, radius + 1, device=device)
    column = torch.arange(size, device=device)[:, None] + offset
    inside = (column >= 0) & (column < size)
    tap = torch.exp(-((offset / std) ** 2) / 2)
    scale = (tap * inside).sum(1).rsqrt()
    weight = tap * scale[:, None] * scale[column.clamp(0, size - 1)]
    start = torch.cat([offset.new_zeros(1), inside.sum(1).cumsum(0)])
    return SparseRows(start.int(), column[inside].int(), weight[inside])

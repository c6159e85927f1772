"""Pillow's bicubic resizing as matrix products, for graphs that cannot call Pillow.

Products of a matrix are in every runtime; antialiased bicubic resizing is in few, and differs
from Pillow's in the last bit, which a network then makes more of.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ONE = 2.0**22  # Pillow's weights are whole numbers of this fraction


def resize_bicubic(
    images: Tensor, size: tuple[Tensor, Tensor], cells: tuple[Tensor, Tensor]
) -> Tensor:
    """Resize as `PIL.Image.resize(..., BICUBIC)` does, to the bit, then repeat the edges.

    Every size is an int64 tensor of one element, so that tracing keeps it free: a dimensionless
    one would be taken for a number of half the precision.

    Args:
        images: (B, C, H, W), whole values of 0 to 255.
        size: height and width to resize to.
        cells: height and width of the result; beyond `size` the last row and column go on.

    Returns:
        (B, C, *cells) float32, whole values of 0 to 255.
    """
    shape = torch._shape_as_tensor(images)
    rows = _weights(shape[2:3], size[0], cells[0])
    columns = _weights(shape[3:4], size[1], cells[1])
    # Width first, and whole values between the two, as in Pillow's 8-bit passes. In float64 the
    # sums are exact.
    narrowed = _rounded(images.double() @ columns.T)
    return _rounded(rows @ narrowed).float()


def _weights(source: Tensor, target: Tensor, cells: Tensor) -> Tensor:
    """(cells, source) weights of the old pixels in the new ones, in units of 1 / _ONE."""
    scale = source.double() / target.double()
    position = torch.minimum(_count(cells[0]), target - 1).double()
    centre = (position + 0.5) * scale
    pixel = _count(source[0]).double() + 0.5
    x = ((pixel[None] - centre[:, None]) / scale.clamp(min=1)).abs()
    # Keys's cubic with a = -0.5.
    near = (1.5 * x - 2.5) * x * x + 1
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    weights = weights / weights.sum(1, keepdim=True)
    return torch.floor(weights.abs() * _ONE + 0.5) * weights.sign()


def _count(n: Any) -> Tensor:
    """0, 1, ... n - 1; an `n` of int64 stays free in the trace."""
    return torch.arange(n)


def _rounded(sums: Tensor) -> Tensor:
    return torch.floor((sums + _ONE / 2) / _ONE).clamp(0, 255)

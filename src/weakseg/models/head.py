"""From backbone features to one unit vector a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weakseg.errors import InputError

HEAD_KINDS = ("mlp", "aspp")


def stack_features(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    stride: int,
    size: Sequence[int] | None = None,
) -> Tensor:
    """Resample feature maps of one batch to a common stride and concatenate their channels.

    Args:
        maps: (B, C_i, h_i, w_i) tensors, as a `Backbone` gives them.
        strides: the stride of each map, in input pixels.
        stride: the stride to bring them to, bilinearly.
        size: (h, w) of the result, ceil(H / stride) and ceil(W / stride) of the images. By
            default that of a map which has the stride already, else what the first map covers.

    Returns:
        (B, sum C_i, h, w).
    """
    if size is None:
        like = strides.index(stride) if stride in strides else 0
        size = [math.ceil(n * strides[like] / stride) for n in maps[like].shape[-2:]]
    return torch.cat(
        [_resample(m, s / stride, size) for m, s in zip(maps, strides, strict=True)], 1
    )


class EmbeddingHead(nn.Module):
    """Maps features to D-dimensional unit vectors.

    Args:
        in_channels: channels of the features.
        dim: D.
        kind: "mlp", two 1x1 convolutions, which cannot overfit to the surroundings of a few
            labelled pixels; or "aspp", four parallel 3x3 convolutions of dilation 6, 12, 18 and
            24, summed (Ke, Hwang, Yu, ICLR 2021, "SPML").
        hidden: channels between the two convolutions of "mlp".
        dropout: share of hidden channels dropped at a time in training ("mlp").
        scale: the vectors' grid is this many times finer than the features', bilinearly.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int = 64,
        kind: str = "mlp",
        *,
        hidden: int = 256,
        dropout: float = 0.1,
        scale: float = 1,
    ) -> None:
        super().__init__()
        if kind not in HEAD_KINDS:
            raise InputError("unknown kind of head", found=kind, rule=" or ".join(HEAD_KINDS))
        self.dim = dim
        self.scale = scale
        self.branches = nn.ModuleList()
        if kind == "mlp":
            self.branches.append(
                nn.Sequential(
                    # Stacked levels differ in scale by orders of magnitude.
                    nn.BatchNorm2d(in_channels, affine=False),
                    nn.Conv2d(in_channels, hidden, 1, bias=False),
                    nn.BatchNorm2d(hidden),
                    nn.ReLU(inplace=True),
                    nn.Dropout2d(dropout),
                    nn.Conv2d(hidden, dim, 1),
                )
            )
        else:
            for rate in (6, 12, 18, 24):
                self.branches.append(nn.Conv2d(in_channels, dim, 3, padding=rate, dilation=rate))

    def forward(self, features: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Unit vectors of a batch.

        Args:
            features: (B, in_channels, h, w).
            size: (h', w') of the result; default, `scale` times h and w.

        Returns:
            (B, D, h', w') float32 (float64 for float64 features), each vector of length 1.
        """
        x: Tensor = self.branches[0](features)
        for branch in self.branches[1:]:
            x = x + branch(features)
        if size is None:
            size = [round(n * self.scale) for n in x.shape[-2:]]
        if tuple(size) != tuple(x.shape[-2:]):
            x = F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
        return unit_vectors(x)


def unit_vectors(x: Tensor) -> Tensor:
    """Vectors along dimension 1 brought to length 1, in float32 or better.

    Half-precision input is widened first: in bfloat16 the squares of a 64-dimensional vector
    lose the last bits that a concentration of 16 then multiplies. A null vector stays null.
    """
    x = x if x.dtype == torch.float64 else x.float()
    return F.normalize(x, dim=1, eps=1e-6)


def _resample(x: Tensor, factor: float, size: Sequence[int]) -> Tensor:
    """Bilinear resampling by `factor`, then cropped or edge-padded by a position to `size`."""
    if factor != 1:
        x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    x = x[..., : size[0], : size[1]]
    missing = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x

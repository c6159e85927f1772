"""The matrix product that the contrast and the grouping spend their time in."""

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """X (n, k) times weight (m, k) transposed: (n, m).

    In float32 on a CPU this calls oneDNN directly, as a frozen linear layer does under
    torch.compile: MKL, which torch.mm takes, leaves AVX-512 unused on some processors and is
    then half as fast.
    """
    if _onednn(x):
        # For views with gaps between their rows oneDNN has nothing but a reference loop.
        x, weight = _without_gaps(x), _without_gaps(weight)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return result
    return x @ weight.T


def _without_gaps(x: Tensor) -> Tensor:
    return x if x.is_contiguous() or x.T.is_contiguous() else x.contiguous()


def _onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )

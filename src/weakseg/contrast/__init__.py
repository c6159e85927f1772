"""Pixel-to-segment contrast of Ke, Hwang, Yu, "SPML" (ICLR 2021), in memory O(N + S).

One function serves every relation; a relation is a table of which groups of segments are positive,
negative or not compared for which groups of pixels.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weakseg.contrast.tiled import Problem, solve

__all__ = ["segment_contrast"]


def segment_contrast(
    pixels: Tensor,
    prototypes: Tensor,
    *,
    own: Tensor,
    pixel_group: Tensor,
    prototype_group: Tensor,
    relation: Tensor,
    concentration: float,
    learned: int | None = None,
) -> Tensor:
    """Contrast of each pixel with the prototypes of segments.

    For pixel v with own segment o, positives P, negatives Q and concentration k::

        pos = sum over s in P, s != o, of exp(k v.u_s), or exp(k v.u_o) where that is empty
        loss = -log(pos / (pos + sum over s in Q of exp(k v.u_s)))

    A pixel whose positives are empty and that has no own segment sits out: its loss is 0.

    Args:
        pixels: (N, D), float64, float32, bfloat16 or float16. Meant to be of unit length; other
            lengths are safe too, only slower.
        prototypes: (S, D).
        own: (N,) integer, index of each pixel's own segment, -1 for none.
        pixel_group: (N,) integer, row of `relation` for each pixel.
        prototype_group: (S,) integer, column of `relation` for each prototype.
        relation: (Gp, Gq): +1 positive, -1 negative, 0 not compared.
        concentration: k.
        learned: only the first so many prototypes have a gradient, all by default; that of the
            others, a memory say, is zero and costs nothing.

    Returns:
        (N,) losses, in float32 for half-precision input. Gradients to pixels and prototypes are
        exact. No N x S matrix is kept.

    Raises:
        ValueError: shapes do not fit.
    """
    _check_shapes(pixels, prototypes, own, pixel_group, prototype_group, relation)
    inputs = (
        pixels,
        prototypes,
        own.long(),
        pixel_group.long(),
        prototype_group.long(),
        relation,
        float(concentration),
        len(prototypes) if learned is None else learned,
    )
    if not torch.is_grad_enabled():
        with torch.autocast(pixels.device.type, enabled=False):
            return solve(Problem(*inputs)).loss
    loss: Tensor = _Contrast.apply(*inputs)
    return loss


class _Contrast(torch.autograd.Function):
    """Computes gradients in the forward pass, for the usual case that all losses weigh the same.

    The exponentials are then made once, not twice. Where the incoming gradient differs from pixel
    to pixel, the gradient by the prototypes is computed anew.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        problem = Problem(*inputs)
        with torch.autocast(problem.pixels.device.type, enabled=False):
            solution = solve(
                problem,
                want_pixels=ctx.needs_input_grad[0],
                want_prototypes=ctx.needs_input_grad[1],
            )
        ctx.save_for_backward(*inputs[:-2], solution.pixels, solution.prototypes)
        ctx.scalars = inputs[-2:]
        return solution.loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        pixels, prototypes, own, row, column, table, by_pixels, by_prototypes = ctx.saved_tensors
        problem = Problem(pixels, prototypes, own, row, column, table, *ctx.scalars)
        with torch.autocast(weight.device.type, enabled=False):
            if by_prototypes is not None:
                if _uniform(weight):
                    by_prototypes = by_prototypes * weight[0]
                else:
                    by_prototypes = solve(problem, weight=weight, want_prototypes=True).prototypes
                by_prototypes = by_prototypes.to(problem.prototypes.dtype)
            if by_pixels is not None:
                by_pixels = (by_pixels * weight[:, None]).to(problem.pixels.dtype)
        return by_pixels, by_prototypes, None, None, None, None, None, None


def _uniform(weight: Tensor) -> bool:
    if len(weight) == 0:
        return False
    if weight.stride(0) == 0:
        return True
    return not weight.is_cuda and bool((weight == weight[0]).all())


def _check_shapes(
    pixels: Tensor,
    prototypes: Tensor,
    own: Tensor,
    pixel_group: Tensor,
    prototype_group: Tensor,
    relation: Tensor,
) -> None:
    if pixels.ndim != 2 or prototypes.ndim != 2 or pixels.shape[1] != prototypes.shape[1]:
        raise ValueError(
            f"pixels (N, D) and prototypes (S, D) must share D, got {tuple(pixels.shape)} "
            f"and {tuple(prototypes.shape)}"
        )
    for name, array, length in (
        ("own", own, len(pixels)),
        ("pixel_group", pixel_group, len(pixels)),
        ("prototype_group", prototype_group, len(prototypes)),
    ):
        if array.shape != (length,):
            raise ValueError(f"{name} must have shape ({length},), got {tuple(array.shape)}")
    if relation.ndim != 2:
        raise ValueError(f"relation must be a table (Gp, Gq), got shape {tuple(relation.shape)}")

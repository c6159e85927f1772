"""Pixel-to-segment contrast of Ke, Hwang, Yu, "SPML" (ICLR 2021), in memory O(N + S).

One function serves every relation; a relation is a table of which groups of segments are positive,
negative or not compared for which groups of pixels.
"""

import warnings
from functools import cache

import torch
from torch import Tensor

from weakseg.contrast import tiled
from weakseg.contrast.problem import Problem

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
    if pixels.is_cuda and torch.is_autocast_enabled("cuda"):
        # As torch's own products under autocast; sums stay in float32.
        pixels, prototypes = (x.to(torch.get_autocast_dtype("cuda")) for x in (pixels, prototypes))
    problem = Problem(
        pixels,
        prototypes,
        own.long(),
        pixel_group.long(),
        prototype_group.long(),
        relation,
        float(concentration),
        len(prototypes) if learned is None else learned,
    )
    with torch.autocast(pixels.device.type, enabled=False):
        if _fused(problem):
            from weakseg.contrast import fused

            return fused.contrast(problem)
        return tiled.contrast(problem)


def _fused(problem: Problem) -> bool:
    """Whether to take the GPU kernels."""
    pixels, prototypes = problem.pixels, problem.prototypes
    double = torch.float64 in (pixels.dtype, prototypes.dtype)
    if not pixels.is_cuda or double or len(pixels) == 0 or len(prototypes) == 0:
        return False
    return _fused_works(pixels.device)


@cache
def _fused_works(device: torch.device) -> bool:
    """Tries the kernels on a small problem, once; Triton or its compiler may be missing."""
    groups = torch.arange(4, device=device)
    eye, ones = torch.eye(4, device=device), torch.ones(4, 4, device=device)
    vectors = eye.requires_grad_(), ones.requires_grad_()
    table = 2 * torch.eye(4, device=device) - 1
    problem = Problem(*vectors, groups, groups, groups, table, 2.0, 4)
    try:
        from weakseg.contrast import fused

        with torch.enable_grad():
            ours, plain = fused.contrast(problem), tiled.contrast(problem)
            gradients = [torch.autograd.grad(loss.sum(), vectors) for loss in (ours, plain)]
        for one, other in zip((ours, *gradients[0]), (plain, *gradients[1]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
    except Exception as error:
        warnings.warn(
            f"the fused contrast does not work here, a slower form is used: {error}", stacklevel=2
        )
        return False
    return True


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

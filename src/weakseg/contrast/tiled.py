"""The contrast tile by tile: a few hundred pixels against the prototypes of their block.

A tile's exponentials stay in cache between the three matrix products that need them, and nothing
of size N x S is ever kept.
"""

from collections.abc import Iterator
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weakseg.contrast.blocks import Block, Standing, blocks, standing
from weakseg.contrast.problem import Problem, Solution, learned_first
from weakseg.product import linear

# A tile's similarities should stay in cache; larger tiles make for better products.
_CPU_TILE_BYTES = 6 << 20
_CUDA_TILE_BYTES = 256 << 20
# Within this the sum of a hundred thousand exponentials neither overflows nor vanishes in float32.
_SAFE_EXPONENT = 60.0
# oneDNN compiles a kernel for each shape it meets: keep them few.
_COLUMN_MULTIPLE = 64
_ROW_MULTIPLE = 32

Rectangle = tuple[slice, slice]


def contrast(problem: Problem) -> Tensor:
    """Loss of each pixel (N,), differentiable."""
    if not torch.is_grad_enabled():
        return solve(problem).loss
    loss: Tensor = _Contrast.apply(*problem.fields())
    return loss


class _Contrast(torch.autograd.Function):
    """Computes gradients in the forward pass, for the usual case that all losses weigh the same.

    The exponentials are then made once, not twice. Where the incoming gradient differs from pixel
    to pixel, the gradient by the prototypes is computed anew.
    """

    @staticmethod
    def forward(ctx: Any, *fields: Any) -> Tensor:
        problem = Problem(*fields)
        solution = solve(
            problem,
            want_pixels=ctx.needs_input_grad[0],
            want_prototypes=ctx.needs_input_grad[1],
        )
        ctx.save_for_backward(*problem.tensors(), solution.pixels, solution.prototypes)
        ctx.scalars = problem.scalars()
        return solution.loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, by_pixels, by_prototypes = ctx.saved_tensors
        problem = Problem(*tensors, *ctx.scalars)
        if by_prototypes is not None:
            if _uniform(weight):
                by_prototypes = by_prototypes * weight[0]
            else:
                with torch.autocast(weight.device.type, enabled=False):
                    solution = solve(problem, weight=weight, want_prototypes=True)
                by_prototypes = solution.prototypes
        if by_pixels is not None:
            by_pixels = by_pixels * weight[:, None]
        return problem.gradients(by_pixels, by_prototypes)


def _uniform(weight: Tensor) -> bool:
    if len(weight) == 0:
        return False
    if weight.stride(0) == 0:
        return True
    return not weight.is_cuda and bool((weight == weight[0]).all())


def solve(
    problem: Problem,
    *,
    weight: Tensor | None = None,
    want_pixels: bool = False,
    want_prototypes: bool = False,
) -> Solution:
    """Computes the losses and, while the exponentials are at hand, their gradients.

    Args:
        problem: the call.
        weight: (N,) of each loss in the gradient by the prototypes; ones by default.
        want_pixels: compute the gradient by the pixels.
        want_prototypes: compute the gradient by the prototypes.
    """
    pixels, own = problem.pixels, problem.own
    precise = torch.promote_types(
        torch.promote_types(pixels.dtype, problem.prototypes.dtype), torch.float32
    )
    # Powers of two: torch's exp2 is a multiple of the speed of its exp on some processors.
    scaled = problem.prototypes.to(precise) * (problem.concentration / log(2))
    place = standing(own, problem.pixel_group, problem.prototype_group, problem.table)
    beside = _beside(problem, place, scaled)
    powers = _powers if _largest_exponent(pixels, scaled) <= _SAFE_EXPONENT else _safe_powers

    loss = torch.zeros(len(pixels), dtype=precise, device=own.device)
    by_pixels = torch.zeros_like(pixels, dtype=precise) if want_pixels else None
    by_prototypes = torch.zeros_like(scaled) if want_prototypes else None
    column_of = torch.full_like(problem.prototype_group, -1)
    for block in blocks(problem.pixel_group, *learned_first(problem)):
        u = _padded(scaled[block.columns])
        u_transposed = u.T.contiguous()
        learned = block.columns[block.columns < problem.learned]
        by_u = torch.zeros_like(_padded(scaled[learned]).T)
        column_of[block.columns] = torch.arange(len(block.columns), device=own.device)
        # Where nothing is excluded, the last column: padding.
        excluded = torch.where(
            place.excluded[block.rows], column_of[own[block.rows].clamp(min=0)], len(u) - 1
        )
        for start, stop in _tiles(block, u):
            rows = block.rows[start:stop]
            v = pixels.index_select(0, rows).to(precise)
            similarity = linear(v, u).scatter_(1, excluded[start:stop, None], -torch.inf)
            positives = list(block.rectangles(start, stop))
            aside = None if beside is None else beside[rows]
            e, total, loss[rows] = powers(similarity, len(block.columns), positives, aside)
            scale = total.reciprocal_()
            if beside is not None:
                scale = scale.masked_fill(place.out[rows], 0.0)
            if by_pixels is not None:
                by_pixels.index_copy_(0, rows, linear(e, u_transposed).mul_(scale[:, None]))
            if by_prototypes is not None:
                if weight is not None:
                    scale = scale * weight[rows]
                e = e[:, : by_u.shape[1]].contiguous()
                by_u += linear((v * scale[:, None]).T.contiguous(), e.T)
        if by_prototypes is not None:
            by_prototypes[learned] += by_u.T[: len(learned)]

    if beside is not None:
        loss.masked_fill_(place.out, 0.0)
        _add_apart(problem, place, loss, weight, scaled, by_pixels, by_prototypes)
    if by_pixels is not None:
        by_pixels *= log(2)
    if by_prototypes is not None:
        by_prototypes *= problem.concentration
    return Solution(loss, by_pixels, by_prototypes)


def _powers(
    similarity: Tensor, columns: int, positives: list[Rectangle], beside: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Turns a tile of similarities into weights, in place.

    Args:
        similarity: (n, m) exponents of two, -inf where excluded; overwritten.
        columns: how many of the m count; the rest is padding.
        positives: rectangles of the tile.
        beside: (n,) exponent of one more positive of each row.

    Returns:
        weights (n, m), total (n,) and loss (n,): the gradient of the loss by the natural exponents
        is weights / total.
    """
    e = similarity.exp2_()
    total = e[:, :columns].sum(dim=1)
    if beside is None:
        positive = torch.zeros_like(total)
    else:
        positive = beside.exp2()
        total += positive
    for rows, cols in positives:
        positive[rows] += e[rows, cols].sum(dim=1)
    # The gradient is e / total - e / positive on positives, e / total elsewhere. The division
    # comes first: positive may be as small, and total as large, as two to the -+80.
    difference = (positive - total)[:, None]
    for rows, cols in positives:
        e[rows, cols].div_(positive[rows, None]).mul_(difference[rows])
    return e, total, (total.double() / positive).log_().to(total.dtype)


def _safe_powers(
    similarity: Tensor, columns: int, positives: list[Rectangle], beside: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`_powers` for exponents of any size, with a maximum of its own for the positives."""
    if beside is None:
        beside = similarity.new_full((len(similarity),), -torch.inf)
    top = similarity[:, :columns].amax(dim=1).maximum(beside)
    positive_top = beside.clone()
    for rows, cols in positives:
        positive_top[rows] = positive_top[rows].maximum(similarity[rows, cols].amax(dim=1))
    shares = [
        (similarity[rows, cols] - positive_top[rows, None]).exp2_() for rows, cols in positives
    ]
    positive = (beside - positive_top).exp2_()
    for (rows, _), share in zip(positives, shares, strict=True):
        positive[rows] += share.sum(dim=1)
    e = similarity.sub_(top[:, None]).exp2_()
    total = e[:, :columns].sum(dim=1) + (beside - top).exp2_()
    loss = (top - positive_top) * log(2) + (total / positive).log()
    difference = total * torch.expm1(-loss)
    for (rows, cols), share in zip(positives, shares, strict=True):
        e[rows, cols] = share.div_(positive[rows, None]).mul_(difference[rows, None])
    return e, total, loss


def _beside(problem: Problem, place: Standing, scaled: Tensor) -> Tensor | None:
    """Exponent of the positive that each pixel has beside the table's, -inf for none.

    Own segments that stand apart, and a harmless 0 for pixels that sit out. None for nothing.
    """
    if not (place.apart | place.out).any():
        return None
    apart = place.apart.nonzero()[:, 0]
    beside = torch.full_like(problem.own, -torch.inf, dtype=scaled.dtype)
    beside.masked_fill_(place.out, 0.0)
    own = scaled[problem.own[apart]]
    beside[apart] = (problem.pixels[apart].to(scaled.dtype) * own).sum(dim=1)
    return beside


def _add_apart(
    problem: Problem,
    place: Standing,
    loss: Tensor,
    weight: Tensor | None,
    scaled: Tensor,
    by_pixels: Tensor | None,
    by_prototypes: Tensor | None,
) -> None:
    """Adds the gradient through own segments that stand apart from the table."""
    apart = place.apart.nonzero()[:, 0]
    own = problem.own[apart]
    slope = torch.expm1(-loss[apart])[:, None]
    if by_pixels is not None:
        by_pixels[apart] += slope * scaled[own]
    if by_prototypes is not None:
        if weight is not None:
            slope = slope * weight[apart, None]
        slope = slope.masked_fill((own >= problem.learned)[:, None], 0.0)
        # index_put_ adds in a fixed order on every device; index_add_ does not.
        step = slope * problem.pixels[apart].to(scaled.dtype)
        by_prototypes.index_put_((own,), step, accumulate=True)


def _largest_exponent(pixels: Tensor, scaled: Tensor) -> float:
    if len(pixels) == 0 or len(scaled) == 0:
        return 0.0
    longest = torch.linalg.vector_norm(pixels, dim=1, dtype=scaled.dtype).max()
    return float(longest * torch.linalg.vector_norm(scaled, dim=1).max())


def _padded(u: Tensor) -> Tensor:
    """At least one row of zeros appended, up to a multiple of `_COLUMN_MULTIPLE`."""
    return torch.nn.functional.pad(u, (0, 0, 0, _COLUMN_MULTIPLE - len(u) % _COLUMN_MULTIPLE))


def _tiles(block: Block, u: Tensor) -> Iterator[tuple[int, int]]:
    size = _CUDA_TILE_BYTES if u.is_cuda else _CPU_TILE_BYTES
    height = size // (len(u) * u.element_size()) // _ROW_MULTIPLE * _ROW_MULTIPLE
    height = max(height, _ROW_MULTIPLE)
    for start in range(0, len(block.rows), height):
        yield start, min(start + height, len(block.rows))

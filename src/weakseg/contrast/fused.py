"""The contrast on a GPU: one kernel forward, two backward, as attention does it.

Pixels and prototypes are sorted by group, so that a tile of pixels visits only the stretch of
prototypes that some of its pixels are compared with. Maxima are kept running, one for all that is
compared and one for the positives, so that no exponent overflows or vanishes; nothing of size
N x S is written. Gradients are summed in a fixed order: results are deterministic.
"""

from dataclasses import dataclass
from math import log
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from weakseg.contrast.blocks import standing
from weakseg.contrast.kernels import forward_kernel, pixels_kernel, prototypes_kernel
from weakseg.contrast.problem import Problem, Solution, learned_first

_ROWS, _COLUMNS = 64, 64
_NONE = -1e30  # stands for minus infinity, without its NaNs


@dataclass(frozen=True)
class _Sorted:
    """A problem with pixels and prototypes sorted by group, and what the kernels need of it.

    Attributes:
        rows: (N,) the pixels in their order here.
        columns: (S,) the prototypes in theirs.
        pixels: (N, D) in this order, as all below.
        prototypes: (S, D), of the pixels' type.
        pixel_group: (N,) int32.
        prototype_group: (S,) int32.
        table: (Gp, Gq) int8.
        excluded: (N,) int32, the prototype here that is left out for a pixel, -1 for none.
        beside: (N,) float32 exponent of two of one more positive, `_NONE` for none.
        column_range: (row tiles, 2) int32, prototypes that a tile of pixels is compared with.
        row_range: (column tiles, 2) int32, pixels that a tile of prototypes is compared with.
    """

    rows: Tensor
    columns: Tensor
    pixels: Tensor
    prototypes: Tensor
    pixel_group: Tensor
    prototype_group: Tensor
    table: Tensor
    excluded: Tensor
    beside: Tensor
    column_range: Tensor
    row_range: Tensor


def contrast(problem: Problem) -> Tensor:
    """Loss of each pixel (N,), differentiable; neither pixels nor prototypes may be empty."""
    loss: Tensor = _Contrast.apply(*problem.fields())
    return loss


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *fields: Any) -> Tensor:
        problem = Problem(*fields)
        loss, total, positive = forward(problem)
        ctx.save_for_backward(*problem.tensors(), loss, total, positive)
        ctx.scalars = problem.scalars()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, loss, total, positive = ctx.saved_tensors
        problem = Problem(*tensors, *ctx.scalars)
        solution = backward(
            problem,
            loss,
            total,
            positive,
            weight,
            want_pixels=ctx.needs_input_grad[0],
            want_prototypes=ctx.needs_input_grad[1],
        )
        return problem.gradients(solution.pixels, solution.prototypes)


def forward(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (N,) and the two log-sum-exps, base two, of each pixel in sorted order."""
    data, out = _sorted(problem)
    count, dims = data.pixels.shape
    total = torch.empty(count, dtype=torch.float32, device=data.pixels.device)
    positive = torch.empty_like(total)
    if count:
        forward_kernel[(len(data.column_range),)](
            data.pixels,
            data.prototypes,
            data.pixel_group,
            data.prototype_group,
            data.table,
            data.excluded,
            data.beside,
            data.column_range,
            total,
            positive,
            count,
            dims,
            data.table.shape[1],
            problem.concentration / log(2),
            **_tiles(data.pixels),
        )
    loss = torch.empty_like(total)
    loss[data.rows] = (total - positive) * log(2)
    return loss.masked_fill_(out, 0.0), total, positive


def backward(
    problem: Problem,
    loss: Tensor,
    total: Tensor,
    positive: Tensor,
    weight: Tensor,
    *,
    want_pixels: bool,
    want_prototypes: bool,
) -> Solution:
    """Gradients of sum(weight * loss); `total` and `positive` are those of `forward`."""
    data, out = _sorted(problem)
    place = standing(problem.own, problem.pixel_group, problem.prototype_group, problem.table)
    weight = weight.float().masked_fill(out, 0.0)
    # Weights are of the order of 1 / N, which half precision may not hold.
    largest = weight.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    weight = weight / largest
    scale = problem.concentration * largest
    common = (
        data.pixels,
        data.prototypes,
        data.pixel_group,
        data.prototype_group,
        data.table,
        data.excluded,
        total,
        positive,
        weight[data.rows],
    )
    count, dims = data.pixels.shape
    sizes = (count, dims, data.table.shape[1], problem.concentration / log(2))
    apart = place.apart.nonzero()[:, 0]
    own, slope = problem.own[apart], (torch.expm1(-loss[apart]) * weight[apart])[:, None]
    by_pixels = by_prototypes = None
    if want_pixels:
        by_sorted = torch.zeros(count, dims, dtype=torch.float32, device=total.device)
        pixels_kernel[(len(data.column_range),)](
            *common, data.column_range, by_sorted, *sizes, **_tiles(data.pixels)
        )
        by_pixels = torch.empty_like(by_sorted)
        by_pixels[data.rows] = by_sorted
        by_pixels[apart] += slope * problem.prototypes[own].float()
        by_pixels *= scale
    if want_prototypes:
        tiles = triton.cdiv(problem.learned, _COLUMNS)
        parts = _parts(tiles, total.device)
        by_part = torch.zeros(parts, tiles * _COLUMNS, dims, device=total.device)
        prototypes_kernel[(tiles, parts)](
            *common, data.row_range, by_part, *sizes, len(data.columns), **_tiles(data.pixels)
        )
        by_prototypes = torch.zeros(
            len(problem.prototypes), dims, dtype=torch.float32, device=total.device
        )
        learned = data.columns[: problem.learned]
        by_prototypes[learned] = by_part.sum(dim=0)[: problem.learned]
        slope = slope.masked_fill((own >= problem.learned)[:, None], 0.0)
        # index_put_ adds in a fixed order; index_add_ does not.
        by_prototypes.index_put_((own,), slope * problem.pixels[apart].float(), accumulate=True)
        by_prototypes *= scale
    return Solution(loss, by_pixels, by_prototypes)


def _sorted(problem: Problem) -> tuple[_Sorted, Tensor]:
    """The problem in sorted order, and which pixels sit out (N,), in theirs."""
    own = problem.own
    group, table = learned_first(problem)
    rows, columns = problem.pixel_group.argsort(stable=True), group.argsort(stable=True)
    pixel_group, prototype_group = problem.pixel_group[rows], group[columns]
    place = standing(own, problem.pixel_group, problem.prototype_group, problem.table)
    position = torch.empty_like(columns)
    position[columns] = torch.arange(len(columns), device=columns.device)
    pixels = problem.pixels.contiguous()
    prototypes = problem.prototypes.to(pixels.dtype).contiguous()
    if len(prototypes):
        nearest = own.clamp(min=0)
        excluded = torch.where(place.excluded, position[nearest], -1)
        beside = (pixels.float() * prototypes[nearest].float()).sum(dim=1)
    else:
        excluded, beside = torch.full_like(own, -1), pixels.new_zeros(len(own)).float()
    beside = (beside * (problem.concentration / log(2))).masked_fill(~place.apart, _NONE)
    compared = table != 0
    data = _Sorted(
        rows=rows,
        columns=columns,
        pixels=pixels[rows],
        prototypes=prototypes[columns],
        pixel_group=pixel_group.int(),
        prototype_group=prototype_group.int(),
        table=table.to(torch.int8).contiguous(),
        excluded=excluded[rows].int(),
        beside=beside.masked_fill(place.out, 0.0)[rows],
        column_range=_ranges(compared, pixel_group, prototype_group, _ROWS),
        row_range=_ranges(compared.T, prototype_group, pixel_group, _COLUMNS),
    )
    return data, place.out


def _ranges(compared: Tensor, group: Tensor, other: Tensor, tile: int) -> Tensor:
    """For each tile of sorted `group`, the stretch of sorted `other` it is compared with."""
    groups = torch.arange(compared.shape[1], device=group.device)
    begin = torch.searchsorted(other, groups)
    end = torch.searchsorted(other, groups, right=True)
    compared = compared & (end > begin)
    low = torch.where(compared, begin, len(other)).amin(dim=1)[group]
    high = torch.where(compared, end, 0).amax(dim=1)[group]
    missing = -len(group) % tile
    low = torch.nn.functional.pad(low, (0, missing), value=len(other)).view(-1, tile).amin(dim=1)
    high = torch.nn.functional.pad(high, (0, missing)).view(-1, tile).amax(dim=1)
    return torch.stack([low, high.maximum(low)], dim=1).int()


def _parts(tiles: int, device: torch.device) -> int:
    """Into how many stretches to cut the pixels, so that all of the GPU sums over them."""
    if device.type != "cuda":
        return 2
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(32, 4 * processors // max(tiles, 1)))


def _tiles(pixels: Tensor) -> dict[str, int | str]:
    exact = pixels.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return {
        "ROWS": _ROWS,
        "COLUMNS": _COLUMNS,
        "DIMS": max(16, triton.next_power_of_2(pixels.shape[1])),
        "PRECISION": "ieee" if exact else "tf32",
    }

"""Random walk of class scores over an image, along the affinity of its embeddings."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from weakseg.errors import InputError
from weakseg.sparse import SparseRows

Product = Callable[[Tensor], Tensor]

SHARPNESS = 100.0
"""How fast affinity falls with the angle: the published exp(5 (cos - 1))^20."""

# Up to 5,792 positions in float32 (a 600 x 600 image at 1/8), the affinity matrix is kept whole;
# above, only entries over `_NEGLIGIBLE` are; and where those are too many, nothing is.
_DENSE_BYTES = 128 * 2**20
_NEGLIGIBLE = 1e-8
_SPARSE_ENTRIES = 2**27  # 1 GB in float32
_ROWS = 256  # of the affinity matrix, made at a time for its sparse form
_TILE = 2048  # rows and columns made at a time where nothing is kept


@torch.no_grad()
def random_walk(
    embeddings: Tensor, scores: Tensor, *, steps: int = 64, sharpness: float = SHARPNESS
) -> Tensor:
    """Spread class scores to positions of like embedding.

    `steps` of a random walk between all pairs of positions, with transitions
    exp(sharpness (cos - 1)) normalised over the columns (Ke, Hwang, Yu, ICLR 2021, "SPML", after
    Ahn and Kwak, CVPR 2018). The defaults are the published exp(5 (cos - 1))^20 and a transition
    matrix squared 6 times. Each step makes a score a weighted mean of the scores before it.

    The matrix is only ever multiplied with the scores, and a Chebyshev series takes the place of
    its power: 29 products for 64 steps, exact to the precision of the type.

    Args:
        embeddings: (D, h, w), any floating type, of any length; a zero vector is like other zero
            vectors and unlike the rest.
        scores: (C, h, w), on the same device.
        steps: number of steps, 0 or more.
        sharpness: how fast affinity falls with the angle.

    Returns:
        (C, h, w), float64 if an input was, else float32. On grids over 128 MiB of affinities
        (5,792 positions in float32), affinities under 1e-8 are left out, which changes scores
        in 0..1 by under 5e-4 and keeps memory under 2 GB.

    Raises:
        InputError: shapes that do not fit, or values that are not finite.
    """
    _check(embeddings, scores, steps, sharpness)
    dtype = torch.promote_types(torch.promote_types(embeddings.dtype, scores.dtype), torch.float32)
    vectors = normalize(embeddings.to(dtype).flatten(1).t(), dim=1)
    zero = ~vectors.any(1, keepdim=True)
    if zero.any():
        vectors = torch.cat([vectors, zero.to(dtype)], 1)
    start = _without_subnormals(scores.to(dtype).flatten(1))
    with torch.autocast(start.device.type, enabled=False):
        if len(vectors) ** 2 * start.element_size() <= _DENSE_BYTES:
            times = _whole_transition(vectors, sharpness)
        else:
            times = _sparse_transition(vectors, sharpness) or _tiled_transition(vectors, sharpness)
        walked = power(times, start, steps)
    # A mean stays within the values it is taken of; rounding may not.
    low, high = scores.to(dtype).flatten(1).aminmax(dim=1, keepdim=True)
    return walked.clamp_(low, high).view_as(scores)


def _check(embeddings: Tensor, scores: Tensor, steps: int, sharpness: float) -> None:
    for name, tensor in (("embeddings", embeddings), ("scores", scores)):
        if tensor.ndim != 3 or not tensor.numel() or not tensor.is_floating_point():
            raise InputError(
                f"random_walk: {name}",
                found=f"{tuple(tensor.shape)} {tensor.dtype}",
                rule="(channels, h, w), floating point, not empty",
            )
        if not tensor.isfinite().all():
            raise InputError(f"random_walk: {name} hold NaN or infinity", rule="finite values")
    if embeddings.shape[1:] != scores.shape[1:]:
        raise InputError(
            "random_walk: scores lie on another grid than embeddings",
            found=tuple(scores.shape[1:]),
            rule=str(tuple(embeddings.shape[1:])),
        )
    if steps < 0:
        raise InputError("random_walk: steps", found=steps, rule="0 or more")
    if not (0 < sharpness < math.inf):
        raise InputError("random_walk: sharpness", found=sharpness, rule="over 0 and finite")


def _without_subnormals(rows: Tensor) -> Tensor:
    """Rows whose entries far below the precision of the largest are raised to it; zero rows stay.

    A softmax that is sure leaves 1e-40 for other classes, and processors take some 10 times as
    long for products of such numbers.
    """
    size = rows.abs()
    least = size.amax() * (1e-5 * torch.finfo(rows.dtype).eps)
    return torch.where((size < least) & rows.any(1, keepdim=True), least, rows)


def _affinity(rows: Tensor, columns: Tensor, sharpness: float) -> Tensor:
    """exp(sharpness (cos - 1)) between unit vectors (n, D), (m, D) -> (n, m)."""
    exponents = torch.addmm(rows.new_tensor(-sharpness), rows * sharpness, columns.t())
    # exp() is 30 times slower where it underflows; e^-40 of a neighbour is nothing either way.
    return exponents.clamp_(min=-40).exp_()


def _whole_transition(vectors: Tensor, sharpness: float) -> Product:
    """The product of scores (C, n) with the transition matrix (n, n), kept whole."""
    transition = _affinity(vectors, vectors, sharpness)
    transition /= transition.sum(0)
    return lambda x: x @ transition


def _sparse_transition(vectors: Tensor, sharpness: float) -> Product | None:
    """The product without affinities that are negligible; None if too many are not."""
    blocks: list[SparseRows] = []
    entries, count, shift = 0, len(vectors), vectors.new_tensor(-sharpness)
    ones = vectors.new_ones(count, 1)
    # Two buffers for all blocks: new ones between the small results would fragment the heap.
    exponents = vectors.new_empty(_ROWS, count)
    near = torch.empty_like(exponents, dtype=torch.bool)
    for first in range(0, count, _ROWS):
        rows = vectors[first : first + _ROWS]
        if len(rows) < len(exponents):
            exponents, near = exponents[: len(rows)], near[: len(rows)]
        torch.addmm(shift, rows * sharpness, vectors.t(), out=exponents)
        torch.gt(exponents, math.log(_NEGLIGIBLE), out=near)
        kept = near.view(-1).nonzero()[:, 0]
        entries += len(kept)
        if entries > _SPARSE_ENTRIES:
            return None
        ends = torch.arange(len(rows) + 1, device=kept.device) * count
        start = torch.searchsorted(kept, ends).int()
        block = SparseRows(start, (kept % count).int(), exponents.view(-1)[kept].exp_())
        # The affinity is symmetric, so its rows serve as the columns that are to sum to 1.
        mass = block.times(ones)[:, 0].repeat_interleave(start.diff())
        blocks.append(block._replace(weight=block.weight.div_(mass)))

    def times(x: Tensor) -> Tensor:
        x = x.t().contiguous()
        return torch.cat([block.times(x) for block in blocks]).t().contiguous()

    return times


def _tiled_transition(vectors: Tensor, sharpness: float) -> Product:
    """The product with the transition matrix, whose tiles are made anew every time."""
    blocks = [slice(i, i + _TILE) for i in range(0, len(vectors), _TILE)]

    def times_affinity(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for i, rows in enumerate(blocks):
            for columns in blocks[i:]:
                tile = _affinity(vectors[rows], vectors[columns], sharpness)
                out[:, columns] += x[:, rows] @ tile
                if columns != rows:  # the affinity is symmetric
                    out[:, rows] += x[:, columns] @ tile.t()
        return out

    mass = times_affinity(vectors.new_ones(1, len(vectors)))
    return lambda x: times_affinity(x) / mass


def power(times: Product, x: Tensor, steps: int) -> Tensor:
    """Apply `times`, a product with a matrix T of spectrum 0..1, to x (..., n) `steps` times over.

    With t = cos^2(a), t^n = 4^-n (C(2n, n) + 2 sum_k C(2n, n - k) cos(2ka)), and cos(2ka) is the
    Chebyshev polynomial T_k(2t - 1). The binomials fall off as exp(-k^2 / n), so that about
    sqrt(n log(1 / eps)) terms do. The affinity is a positive definite kernel, hence the spectrum.
    """
    weights: list[float] = [math.comb(2 * steps, steps) / 4**steps]
    for k in range(steps):
        weights.append(weights[-1] * (steps - k) / (steps + k + 1))
    weights[1:] = [2 * weight for weight in weights[1:]]
    tail = 0.0
    while len(weights) > 1 and tail + weights[-1] < torch.finfo(x.dtype).eps:
        tail += weights.pop()
    before = now = x
    total = x * weights[0]
    for k, weight in enumerate(weights[1:], 1):
        shifted = times(now).mul_(2).sub_(now)
        before, now = now, shifted if k == 1 else shifted.mul_(2).sub_(before)
        total.add_(now, alpha=weight)
    return total.div_(sum(weights))

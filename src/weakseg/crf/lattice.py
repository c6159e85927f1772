"""Gaussian filtering of scattered points on a permutohedral lattice (Adams, Baek, Davis, 2010).

Points are spread over the corners of the simplex they lie in (splat), the corners are blurred along
each lattice direction, and every point reads its corners back (slice). All three are products with
sparse matrices that depend on the positions only, so they are built once and used every iteration.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class SparseRows(NamedTuple):
    """A sparse matrix by rows: row r has `weight[start[r] : start[r + 1]]` at those `column`s."""

    start: Tensor  # (rows + 1,) int32 or int64
    column: Tensor  # (entries,) like start
    weight: Tensor  # (entries,) float32

    def times(self, dense: Tensor) -> Tensor:
        """Matrix times `dense` (columns, C) -> (rows, C)."""
        # A weighted embedding bag is exactly this product, and has the fastest CPU kernel for it in
        # torch and scipy (docs/performance.md).
        return embedding_bag(
            self.column,
            dense,
            self.start,
            mode="sum",
            per_sample_weights=self.weight,
            include_last_offset=True,
        )


class Lattice(NamedTuple):
    """Filter of N points with kernel exp(-|p_i - p_j|^2 / 2), as sparse factors."""

    splat: SparseRows  # (vertices, N)
    blurs: list[SparseRows]  # (vertices, vertices), applied in turn
    slice: SparseRows  # (N, vertices)

    def filter(self, values: Tensor) -> Tensor:
        """Filter `values` (N, C) float32 -> (N, C)."""
        values = self.splat.times(values)
        for blur in self.blurs:
            values = blur.times(values)
        return self.slice.times(values)

    def normalised(self, weight: float) -> "Lattice":
        """The lattice whose filter is `weight` D^-1/2 K D^-1/2, with D the row sums of K.

        This is the symmetric normalisation of Kraehenbuehl and Koltun (2013); it costs nothing per
        iteration, for it goes into the weights of splat and slice.
        """
        ones = torch.ones(len(self.slice.start) - 1, 1, device=self.slice.weight.device)
        scale = (self.filter(ones)[:, 0] + 1e-20).rsqrt()
        corners = len(self.slice.weight) // len(scale)
        splat = self.splat._replace(weight=self.splat.weight * scale[self.splat.column])
        slices = self.slice._replace(
            weight=self.slice.weight * (weight * scale).repeat_interleave(corners)
        )
        return Lattice(splat, self.blurs, slices)


def build_lattice(positions: Tensor) -> Lattice:
    """Build the lattice of `positions` (d, N) float32, in units of the kernel's standard deviation.

    Raises:
        ValueError: when the positions span so many cells that a vertex has no 62-bit key.
    """
    dims, count = positions.shape
    base, order, barycentric = _enclosing_simplices(positions)
    keys, steps = _vertex_keys(base, order)
    del base, order

    # Vertices get numbers by sorted key, so that a blur step, too, is a constant shift of the key.
    sorted_keys, by_vertex = keys.view(-1).sort()
    del keys
    first = torch.ones_like(sorted_keys, dtype=torch.bool)
    torch.ne(sorted_keys[1:], sorted_keys[:-1], out=first[1:])
    vertex_keys = sorted_keys[first]
    del sorted_keys
    # int32 indices halve the traffic and hold until 2^31 corners.
    index = torch.int32 if (dims + 1) * count < 2**31 else torch.int64
    number = (first.cumsum(0, dtype=index) - 1).to(index)
    start = torch.cat([first.nonzero()[:, 0], first.new_tensor([len(first)], dtype=torch.int64)])
    splat = SparseRows(
        start.to(index), (by_vertex % count).to(index), barycentric.view(-1)[by_vertex]
    )
    corner = torch.empty_like(number)
    corner[by_vertex] = number
    del by_vertex, number, first

    alpha = 1 / (1 + 2.0**-dims)  # the overall gain of splat, blur and slice
    slices = SparseRows(
        torch.arange(count + 1, device=positions.device, dtype=index) * (dims + 1),
        corner.view(dims + 1, count).t().reshape(-1),
        (alpha * barycentric).t().reshape(-1),
    )
    blurs = [_blur_rows(vertex_keys, step, index) for step in steps]
    return Lattice(splat, blurs, slices)


def _enclosing_simplices(positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex of each point.

    Returns:
        base: (d+1, N) int64, its remainder-0 vertex, in units of d+1.
        order: (d+1, N) int64, coordinates by falling distance from that vertex.
        barycentric: (d+1, N) float32, weight of the vertex of remainder 0..d.
    """
    dims, count = positions.shape
    elevated = positions.new_empty(dims + 1, count)  # on the plane of coordinates that sum to 0
    above = torch.zeros_like(positions[0])
    for j in range(dims, 0, -1):
        scaled = positions[j - 1] * (math.sqrt(2 / 3) * (dims + 1) / math.sqrt(j * (j + 1)))
        elevated[j] = above - j * scaled
        above += scaled
    elevated[0] = above
    elevated /= dims + 1

    base = elevated.round()
    excess = base.sum(0)
    elevated -= base
    rank = _descending_rank(elevated)
    rank += excess.to(rank.dtype)
    # Rounding left the plane by `excess`: move the coordinates that are furthest off back.
    shift = (rank < 0).to(rank.dtype) - (rank > dims).to(rank.dtype)
    rank += shift * (dims + 1)
    base += shift
    elevated -= shift

    coordinate = torch.arange(dims + 1, device=positions.device)[:, None].expand(-1, count)
    order = torch.empty_like(coordinate).scatter_(0, rank.long(), coordinate)
    falling = elevated.gather(0, order)
    barycentric = torch.empty_like(falling)
    barycentric[0] = 1 + falling[dims] - falling[0]
    barycentric[1:] = (falling[:-1] - falling[1:]).flip(0)
    return base.long(), order, barycentric


def _descending_rank(values: Tensor) -> Tensor:
    """Rank of each entry in its column, 0 for the largest, ties by row; (K, N) -> (K, N) int16."""
    rank = torch.zeros_like(values, dtype=torch.int16)
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            less = values[i] < values[j]
            rank[i] += less
            rank[j] += ~less
    return rank


def _vertex_keys(base: Tensor, order: Tensor) -> tuple[Tensor, list[int]]:
    """Pack each vertex into one integer.

    Returns:
        keys: (d+1, N) int64, key of the vertex of remainder 0..d.
        steps: for each of the d+1 blur directions, the change of key to the next vertex.
    """
    dims = len(base) - 1
    # The last coordinate follows from the others. A margin of two cells keeps the vertices of a
    # simplex and the neighbours of those inside the box, so that no two of them share a key.
    low = base[:dims].amin(1) - 2
    size = ((base[:dims].amax(1) + 2 - low + 1) * (dims + 1)).tolist()
    if math.prod(size) >= 2**62:
        raise ValueError(
            f"the positions span {size} lattice steps, too many for 62-bit keys; use larger "
            "standard deviations"
        )
    strides = [math.prod(size[i + 1 :]) for i in range(dims)] + [0]
    stride = torch.tensor(strides, device=base.device)
    keys = torch.empty_like(base)
    keys[0] = ((base[:dims] - low[:, None]) * (stride[:dims, None] * (dims + 1))).sum(0)
    # From one vertex of the simplex to the next: +1 everywhere, but -d for one coordinate.
    for remainder in range(dims):
        keys[remainder + 1] = keys[remainder] + sum(strides)
        keys[remainder + 1] -= (dims + 1) * stride[order[dims - remainder]]
    return keys, [(dims + 1) * strides[j] - sum(strides) for j in range(dims + 1)]


def _blur_rows(vertex_keys: Tensor, step: int, index: torch.dtype) -> SparseRows:
    """The blur [1/2, 1, 1/2] along one direction, on the vertices that exist."""
    count = len(vertex_keys)
    target = vertex_keys + step
    found = torch.searchsorted(vertex_keys, target).clamp_(max=count - 1)
    here = (vertex_keys[found] == target).nonzero()[:, 0]
    there = found[here]
    # At most three entries a row: itself, the next and the previous vertex.
    columns = torch.full((count, 3), -1, dtype=index, device=vertex_keys.device)
    columns[:, 0] = torch.arange(count, device=vertex_keys.device)
    columns[here, 1] = there.to(index)
    columns[there, 2] = here.to(index)
    present = columns >= 0
    start = torch.zeros(count + 1, dtype=index, device=vertex_keys.device)
    torch.cumsum(present.sum(1), 0, dtype=index, out=start[1:])
    weight = torch.tensor([1.0, 0.5, 0.5], device=vertex_keys.device).expand(count, 3)
    return SparseRows(start, columns[present], weight[present])

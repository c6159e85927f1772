"""Gaussian filtering of scattered points on a permutohedral lattice (Adams, Baek, Davis, 2010).

Points are spread over the corners of the simplex they lie in (splat), the corners are blurred along
each lattice direction, and every point reads its corners back (slice). All three are products with
sparse matrices that depend on the positions only, so they are built once and used every iteration.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from weakseg.errors import InputError
from weakseg.sparse import SparseRows

_LARGE = 2**24  # corners; a larger lattice filters a few channels at a time, to save memory
_CHANNELS = 8
_FURTHEST = 2**17  # cells from the origin; float32 resolves the inside of one no further out


class Lattice(NamedTuple):
    """Filter of N points with kernel exp(-|p_i - p_j|^2 / 2), as sparse factors."""

    splat: SparseRows  # (vertices, N)
    blurs: list[SparseRows]  # (vertices, vertices), applied in turn
    slice: SparseRows  # (N, vertices)

    def filter(self, values: Tensor) -> Tensor:
        """Filter `values` (N, C) float32 -> (N, C)."""
        if values.shape[1] > _CHANNELS and self.slice.column.numel() > _LARGE:
            out = torch.empty_like(values)
            for c in range(0, values.shape[1], _CHANNELS):
                out[:, c : c + _CHANNELS] = self.filter(values[:, c : c + _CHANNELS].contiguous())
            return out
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
        InputError: when the positions lie so many cells apart that vertices lose their keys.
    """
    dims, count = positions.shape
    device = positions.device
    base, order, barycentric = _enclosing_simplices(positions)
    keys, steps = _vertex_keys(base, order)
    del base, order
    # int32 indices halve the traffic and hold until 2^31 corners.
    index = torch.int32 if (dims + 1) * count < 2**31 else torch.int64

    # Vertices of different remainder are never the same, so each kind is sorted by itself.
    vertices: list[Tensor] = []  # sorted keys of each remainder's vertices
    starts, pixels, weights = [], [], []
    corner = torch.empty(count, dims + 1, dtype=index, device=device)
    before = 0
    for remainder in range(dims + 1):
        sorted_keys, pixel = keys[remainder].sort()
        first = torch.ones_like(sorted_keys, dtype=torch.bool)
        torch.ne(sorted_keys[1:], sorted_keys[:-1], out=first[1:])
        vertices.append(sorted_keys[first])
        starts.append((first.nonzero()[:, 0] + remainder * count).to(index))
        pixels.append(pixel.to(index))
        weights.append(barycentric[remainder][pixel])
        corner[pixel, remainder] = first.cumsum(0, dtype=index) + (before - 1)
        before += len(vertices[-1])
    starts.append(torch.full((1,), (dims + 1) * count, dtype=index, device=device))
    splat = SparseRows(torch.cat(starts), torch.cat(pixels), torch.cat(weights))
    slices = SparseRows(
        torch.arange(0, corner.numel() + 1, dims + 1, device=device, dtype=index),
        corner.view(-1),
        # The gain of splat, blur and slice together is 1 + 2^-d.
        (barycentric / (1 + 2.0**-dims)).t().reshape(-1),
    )
    return Lattice(splat, [_blur_rows(vertices, step, index) for step in steps], slices)


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
    furthest = elevated.abs().max().item()
    if not furthest < _FURTHEST:
        raise _too_far(furthest)

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


def _too_far(cells: float) -> InputError:
    return InputError(
        "the pixels lie too many standard deviations apart in place or colour",
        found=f"about {cells:.1e} lattice cells",
        rule="fewer; use larger standard deviations",
    )


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
    """Pack each vertex into one integer, unique among those of its remainder.

    Returns:
        keys: (d+1, N) int64, key of the vertex of remainder 0..d.
        steps: for each of the d+1 lattice directions, the change of key that a step along it makes;
            the step leads from remainder r to r - 1.
    """
    dims = len(base) - 1
    # Vertices are counted in steps along the first d directions; a step along the last one undoes a
    # step along each of them. The margin is one step inside the simplex and one to a neighbour.
    steps_along = base[:dims] - base[dims]
    low = steps_along.amin(1) - 2
    size: list[int] = (steps_along.amax(1) + 3 - low).tolist()
    if math.prod(size) >= 2**62:
        raise _too_far(max(size))
    strides = [math.prod(size[i + 1 :]) for i in range(dims)]
    strides.append(-sum(strides))
    stride = torch.tensor(strides, device=base.device)
    keys = torch.empty_like(base)
    keys[0] = ((steps_along - low[:, None]) * stride[:dims, None]).sum(0)
    for remainder in range(dims):
        torch.sub(keys[remainder], stride[order[dims - remainder]], out=keys[remainder + 1])
    return keys, strides


def _blur_rows(vertices: list[Tensor], step: int, index: torch.dtype) -> SparseRows:
    """The blur [1/2, 1, 1/2] along one direction; `vertices` are the keys of each remainder's."""
    sizes = [len(keys) for keys in vertices]
    offsets = [sum(sizes[:r]) for r in range(len(sizes))]
    device = vertices[0].device
    # Rows of three: the vertex, the next and the previous one, or itself with weight 0 where there
    # is none.
    count = sum(sizes)
    columns = torch.arange(count, dtype=index, device=device)[:, None].repeat(1, 3)
    weights = columns.new_tensor([1.0, 0.0, 0.0], dtype=torch.float32).repeat(count, 1)
    for remainder, keys in enumerate(vertices):
        others = vertices[remainder - 1]
        target = keys + step
        found = _search(others, target)
        found.clamp_(max=len(others) - 1)
        here = (others[found] == target).nonzero()[:, 0]
        there = found[here] + offsets[remainder - 1]
        here += offsets[remainder]
        columns[here, 1] = there.to(index)
        weights[here, 1] = 0.5
        columns[there, 2] = here.to(index)
        weights[there, 2] = 0.5
    start = torch.arange(0, 3 * count + 1, 3, dtype=index, device=device)
    return SparseRows(start, columns.view(-1), weights.view(-1))


def _search(keys: Tensor, targets: Tensor) -> Tensor:
    """Position of the first of the sorted `keys` that is no less, for each of sorted `targets`."""
    if keys.device.type == "cpu":  # numpy's search gains from sorted targets: 3 times faster
        return torch.from_numpy(np.searchsorted(keys.numpy(), targets.numpy()))
    return torch.searchsorted(keys, targets)

"""Spherical k-means over a batch of images."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from weakseg.product import linear

# oneDNN compiles a kernel for each shape it meets: keep them few.
_ROW_MULTIPLE = 1024
# Gathering the pixels that may move pays where at most this share of an image may.
_WORTH_GATHERING = 0.7
_ROUNDING = 1e-6


def grid_start(height: int, width: int, grid: tuple[int, int]) -> Tensor:
    """Start labels (H, W) of a grid of ky x kx cells: cell row + ky * cell column."""
    ky, kx = grid
    rows = torch.linspace(0, ky - 1, height).round().long()
    columns = torch.linspace(0, kx - 1, width).round().long()
    return rows[:, None] + ky * columns


@torch.no_grad()
def spherical_kmeans(
    vectors: Tensor, valid: Tensor, start: Tensor, clusters: int, iterations: int
) -> Tensor:
    """Clusters each image's unit vectors; an empty cluster drops out.

    Args:
        vectors: (B, P, D), unit length along D.
        valid: (B, P) bool; other pixels do not count towards a centre.
        start: (P,) int64, 0..clusters-1, start label of each pixel of every image.
        clusters: how many an image has at most.
        iterations: rounds of M-step (normalised sum) and E-step (nearest by the dot product).

    Returns:
        (B, P) int64, 0..clusters-1; arbitrary where not valid.
    """
    label = start.to(vectors.device).repeat(len(vectors), 1)
    if vectors.is_cuda:
        return _batched(vectors, valid, label, clusters, iterations)
    counts = valid.sum(dim=1).tolist()
    if sum(counts) == valid.numel():
        _moving(vectors.flatten(0, 1), counts, label.view(-1), clusters, iterations)
    elif sum(counts):
        label[valid] = _moving(vectors[valid], counts, label[valid], clusters, iterations)
    return label


def _batched(
    vectors: Tensor, valid: Tensor, label: Tensor, clusters: int, iterations: int
) -> Tensor:
    """Every pixel in every round, without a look at the values: nothing waits for the device."""
    member = torch.arange(clusters, device=vectors.device)
    for _ in range(iterations):
        assigned = ((label[..., None] == member) & valid[..., None]).to(vectors.dtype)
        centres = normalize(torch.bmm(assigned.mT, vectors), dim=2)
        empty = assigned.sum(dim=1, keepdim=True) == 0
        similarity = torch.bmm(vectors, centres.mT)
        label = similarity.masked_fill_(empty, -torch.inf).argmax(dim=2)
    return label


def _moving(
    vectors: Tensor, counts: list[int], label: Tensor, clusters: int, iterations: int
) -> Tensor:
    """The same, looking only at pixels that may have moved.

    A pixel nearer to its centre than to every other by a gap stays while no two centres have
    travelled further than that together: |v.c' - v.c| <= |c' - c|. Sums are corrected for the
    pixels that did move instead of being taken anew.

    Args:
        vectors: (N, D), the images one after the other.
        counts: pixels of each image.
        label: (N,), cluster within the image; updated in place.
        clusters: of one image.
        iterations: rounds.
    """
    groups = clusters * len(counts)
    bounds = torch.tensor([0, *counts]).cumsum(0)
    first = torch.arange(0, groups, clusters).repeat_interleave(torch.tensor(counts))
    sums = vectors.new_zeros(groups, vectors.shape[1]).index_add_(0, label + first, vectors)
    population = torch.bincount(label + first, minlength=groups)
    centres = normalize(sums, dim=1)
    # How far centres may have travelled before a pixel has to be looked at again.
    expiry = vectors.new_full((len(vectors),), -1.0)
    travelled = 0.0
    for _ in range(iterations):
        rows, x, here, ends = None, vectors, label, bounds
        stale = expiry <= travelled
        if int(stale.sum()) < _WORTH_GATHERING * len(stale):
            rows = stale.nonzero()[:, 0]
            x = vectors.index_select(0, pad(rows, (0, _ROW_MULTIPLE)))
            here, ends = label.index_select(0, rows), torch.searchsorted(rows, bounds)
        parts = _similarities(x, ends.tolist(), centres, population)
        gap, moved, to = _nearest(parts if rows is None else [torch.cat(list(parts))], here)
        gap.clamp_(min=0).add_(travelled)
        expiry = gap if rows is None else expiry.index_copy_(0, rows, gap)
        if len(moved) == 0:
            break
        source, left = x.index_select(0, moved), here.index_select(0, moved)
        if rows is not None:
            moved = rows.index_select(0, moved)
        label.index_copy_(0, moved, to)
        offset = first.index_select(0, moved)
        to += offset
        left += offset
        sums.index_add_(0, to, source).index_add_(0, left, source.neg_())
        population += torch.bincount(to, minlength=groups)
        population -= torch.bincount(left, minlength=groups)
        previous, centres = centres, normalize(sums, dim=1)
        travelled += 2 * float((centres - previous).norm(dim=1).max()) + _ROUNDING
    return label


def _similarities(
    x: Tensor, bounds: list[int], centres: Tensor, population: Tensor
) -> Iterator[Tensor]:
    """Similarity of the pixels of each image to its centres, -inf where one is empty.

    Args:
        x: (n or more, D), the images' pixels one after the other, then anything.
        bounds: where each image begins in them, and the end.
        centres: (B * clusters, D).
        population: (B * clusters,) pixels of each.

    Yields:
        (pixels, clusters) of the next image.
    """
    images = len(bounds) - 1
    some_empty = not population.all()
    for image, centre in enumerate(centres.chunk(images)):
        start, stop = bounds[image : image + 2]
        # Where there are rows beyond the image's they make for a rounder shape, and are dropped.
        end = start - (start - stop) // _ROW_MULTIPLE * _ROW_MULTIPLE
        similarity = linear(x[start:end], centre)[: stop - start]
        if some_empty:
            similarity.masked_fill_(population.chunk(images)[image] == 0, -torch.inf)
        yield similarity


def _nearest(similarities: Iterable[Tensor], label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compares pixels' own centres with the others.

    Args:
        similarities: (pixels, clusters) each; overwritten.
        label: (n,) of all these pixels, their clusters.

    Returns:
        (n,) by how much the own centre is nearer than any other; (m,) the pixels for which that is
        negative; (m,) the clusters that these belong to now.
    """
    gaps, moved, to = [], [], []
    start = 0
    for similarity in similarities:
        own = label[start : start + len(similarity), None]
        gap = similarity.gather(1, own).squeeze(1)
        other = similarity.scatter_(1, own, -torch.inf).amax(dim=1)
        gaps.append(gap.sub_(other))
        mover = (gap < 0).nonzero()[:, 0]
        to.append(_first_at(similarity.index_select(0, mover), other.index_select(0, mover)))
        moved.append(mover.add_(start))
        start += len(similarity)
    return torch.cat(gaps), torch.cat(moved), torch.cat(to)


def _first_at(similarity: Tensor, value: Tensor) -> Tensor:
    """First column that has the value, row by row: a faster argmax."""
    rank = torch.arange(similarity.shape[1], 0, -1, dtype=similarity.dtype)
    at = similarity.eq_(value[:, None]).mul_(rank)
    return similarity.shape[1] - at.amax(dim=1).long()

"""Spherical k-means over a batch of images."""

from itertools import pairwise

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
    label += clusters * torch.arange(len(vectors))[:, None]
    if bool(valid.all()):
        _moving(vectors.flatten(0, 1), counts, label.view(-1), clusters, iterations)
    else:
        label[valid] = _moving(vectors[valid], counts, label[valid], clusters, iterations)
    return label.remainder_(clusters)


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
    moved by more than that gap together: |v.c' - v.c| <= |c' - c|. Sums are corrected for the
    pixels that did move instead of being taken anew.

    Args:
        vectors: (N, D), the images one after the other.
        counts: pixels of each image.
        label: (N,), cluster + clusters * image; updated in place.
        clusters: of one image.
        iterations: rounds.
    """
    groups = clusters * len(counts)
    sums = vectors.new_zeros(groups, vectors.shape[1]).index_add_(0, label, vectors)
    population = torch.bincount(label, minlength=groups)
    centres = normalize(sums, dim=1)
    travelled = 0.0
    # How far centres may have travelled before a pixel has to be looked at again.
    expiry = vectors.new_full((len(vectors),), -1.0)
    first_of_image = torch.tensor([0, *counts]).cumsum(0)
    for _ in range(iterations):
        stale = expiry <= travelled
        if int(stale.sum()) > _WORTH_GATHERING * len(vectors):
            rows, x, bounds = None, vectors, first_of_image
        else:
            rows = stale.nonzero()[:, 0]
            x = vectors.index_select(0, pad(rows, (0, _ROW_MULTIPLE)))
            bounds = torch.searchsorted(rows, first_of_image)
        here = label if rows is None else label[rows]
        gap, moved, to = _reassign(x, here, bounds.tolist(), centres, population, clusters)
        if rows is None:
            expiry = gap.add_(travelled)
        else:
            expiry[rows] = gap.add_(travelled)
        if len(moved) == 0:
            break
        source = x.index_select(0, moved)
        left = here[moved]
        sums.index_add_(0, to, source).index_add_(0, left, source.neg_())
        label[moved if rows is None else rows[moved]] = to
        population += torch.bincount(to, minlength=groups) - torch.bincount(left, minlength=groups)
        previous, centres = centres, normalize(sums, dim=1)
        travelled += 2 * float((centres - previous).norm(dim=1).max()) + _ROUNDING
    return label


def _reassign(
    x: Tensor, label: Tensor, bounds: list[int], centres: Tensor, population: Tensor, clusters: int
) -> tuple[Tensor, Tensor, Tensor]:
    """E-step.

    Args:
        x: (n or more, D), vectors to look at, then anything.
        label: (n,) their present clusters, numbered over the batch.
        bounds: where each image begins in them, and the end.
        centres: (B * clusters, D).
        population: (B * clusters,) pixels of each.
        clusters: of one image.

    Returns:
        (n,) by how much a pixel's centre is nearer than any other, 0 if it moves; (m,) which move;
        (m,) their new clusters.
    """
    rank = torch.arange(clusters, 0, -1, dtype=x.dtype)[:, None]
    own_similarity, best_other = x.new_empty(len(label)), x.new_empty(len(label))
    moved, to = [], []
    for image, (start, stop) in enumerate(pairwise(bounds)):
        first = image * clusters
        # Where there are rows beyond the image's they make for a rounder shape, and are dropped.
        end = start - (start - stop) // _ROW_MULTIPLE * _ROW_MULTIPLE
        similarity = linear(centres[first : first + clusters], x[start:end])[:, : stop - start]
        empty = population[first : first + clusters] == 0
        if empty.any():
            similarity[empty] = -torch.inf
        own = (label[start:stop] - first)[None]
        mine, other = own_similarity[None, start:stop], best_other[start:stop]
        torch.gather(similarity, 0, own, out=mine)
        similarity.scatter_(0, own, -torch.inf)
        torch.amax(similarity, 0, out=other)
        mover = (other > mine[0]).nonzero()[:, 0]
        # The first cluster at that similarity, without argmax, which is slow along columns.
        at_best = similarity.index_select(1, mover).eq_(other[mover])
        to.append(first + clusters - at_best.mul_(rank).amax(dim=0).long())
        moved.append(start + mover)
    return own_similarity.sub_(best_other).clamp_(min=0), torch.cat(moved), torch.cat(to)

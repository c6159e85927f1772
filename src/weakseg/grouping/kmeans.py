"""Spherical k-means over a batch of images."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


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
    return _moving(vectors, valid, label, clusters, iterations)


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
    vectors: Tensor, valid: Tensor, label: Tensor, clusters: int, iterations: int
) -> Tensor:
    """The same, in which the centres' sums are corrected for the pixels that move, not made anew.

    All images at once: few operations a round, for on the crops that training sees each takes less
    time than its call. Similarities stand one cluster a row: torch finds maxima over rows many
    times faster than along them.
    """
    batch, pixels, dims = vectors.shape
    rows = vectors.reshape(-1, dims)
    first = torch.arange(batch)[:, None] * clusters
    group = (label + first).view(-1)  # cluster within the batch
    counted = group.masked_fill(~valid.view(-1), batch * clusters)
    groups = batch * clusters
    sums = rows.new_zeros(groups + 1, dims).index_add_(0, counted, rows)[:-1]
    population = torch.bincount(counted, minlength=groups + 1)[:-1]
    for _ in range(iterations):
        centres = normalize(sums, dim=1).view(batch, clusters, dims)
        similarity = torch.bmm(centres, vectors.mT)
        if not population.all():
            empty = (population == 0).view(batch, clusters, 1)
            similarity.masked_fill_(empty, -torch.inf)
        here = (group.view(batch, pixels) - first)[:, None]
        own = similarity.gather(1, here)
        similarity.scatter_(1, here, -torch.inf)
        nearer = (similarity.amax(dim=1) > own[:, 0]).logical_and_(valid)
        image, pixel = nearer.nonzero(as_tuple=True)
        if len(image) == 0:
            break
        moved = image * pixels + pixel
        left = group.index_select(0, moved)
        to = similarity[image, :, pixel].argmax(dim=1) + image * clusters
        source = rows.index_select(0, moved)
        sums.index_add_(0, to, source).index_add_(0, left, source, alpha=-1)
        population += torch.bincount(to, minlength=groups)
        population -= torch.bincount(left, minlength=groups)
        group.index_copy_(0, moved, to)
    return group.view(batch, pixels) - first

"""Pixels to segments: spherical k-means on embedding and location, split by seed and region.

The grouping of Hwang et al., "SegSort" (ICCV 2019), as used by Ke, Hwang, Yu, "SPML" (ICLR 2021).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Segments:
    """The segments of a batch of images, numbered by first appearance in raster order.

    Attributes:
        index: (B, H, W) int64, the segment of each pixel, -1 where the pixel is ignored.
        prototypes: (S, D), normalised sum of a segment's unit vectors; carries gradients.
        prototypes_with_location: (S, D + 2), the same of the vectors from `with_location`.
        seed: (S,) int64, the value of the seed map on the segment.
        region: (S,) int64, its low-level region (ids are per image).
        image: (S,) int64, its image in the batch; never decreases.
    """

    index: Tensor
    prototypes: Tensor
    prototypes_with_location: Tensor
    seed: Tensor
    region: Tensor
    image: Tensor

    def __len__(self) -> int:
        return self.seed.shape[0]


def with_location(unit_embeddings: Tensor) -> Tensor:
    """Appends (y, x), each linspace(0, 1) - 0.5, to unit vectors and normalises again.

    Args:
        unit_embeddings: (B, D, H, W), unit length along D.

    Returns:
        (B, D + 2, H, W), unit length along dim 1.
    """
    batch, _, height, width = unit_embeddings.shape
    dtype, device = unit_embeddings.dtype, unit_embeddings.device
    y = torch.linspace(0, 1, height, dtype=dtype, device=device)[:, None] - 0.5
    x = torch.linspace(0, 1, width, dtype=dtype, device=device) - 0.5
    y, x = y.expand(batch, 1, height, width), x.expand(batch, 1, height, width)
    return normalize(torch.cat([unit_embeddings, y, x], dim=1), dim=1)


def segment_means(vectors: Tensor, index: Tensor, segments: int) -> Tensor:
    """Normalised sum of the vectors of each segment.

    Args:
        vectors: (N, D).
        index: (N,) int64, 0..segments-1, the segment of each vector.
        segments: how many there are.

    Returns:
        (segments, D), unit length; zero for a segment without vectors.
    """
    sums = vectors.new_zeros(segments, vectors.shape[1]).index_add(0, index, vectors)
    return normalize(sums, dim=1)


@torch.no_grad()
def spherical_kmeans(
    vectors: Tensor, valid: Tensor, grid: tuple[int, int], iterations: int
) -> Tensor:
    """Clusters each image's unit vectors, starting from a grid of ky x kx cells.

    Args:
        vectors: (B, D, H, W), unit length along D.
        valid: (B, H, W) bool; other pixels do not count towards a centre.
        grid: (ky, kx).
        iterations: rounds of M-step (normalised sum) and E-step (argmax of the dot product).

    Returns:
        (B, H, W) int64, 0..ky*kx-1. A cluster that no pixel is in drops out.
    """
    batch, channels, height, width = vectors.shape
    ky, kx = grid
    rows = torch.linspace(0, ky - 1, height, device=vectors.device).round().long()
    columns = torch.linspace(0, kx - 1, width, device=vectors.device).round().long()
    label = (rows[:, None] + ky * columns).reshape(1, -1).repeat(batch, 1)
    points = vectors.reshape(batch, channels, -1)
    weight = valid.reshape(batch, 1, -1).to(points.dtype)
    member = torch.arange(ky * kx, device=vectors.device)[:, None]
    for _ in range(iterations):
        assigned = (label[:, None] == member).to(points.dtype) * weight
        sums = torch.bmm(assigned, points.transpose(1, 2))
        similarity = torch.bmm(normalize(sums, dim=2), points)
        empty = assigned.sum(dim=2, keepdim=True) == 0
        label = similarity.masked_fill_(empty, -torch.inf).argmax(dim=1)
    return label.reshape(batch, height, width)


def segment_pixels(
    embeddings: Tensor,
    seeds: Tensor,
    regions: Tensor,
    *,
    grid: tuple[int, int],
    iterations: int,
    ignore_index: int = 255,
) -> Segments:
    """Groups a batch of pixel embeddings into segments that cross no seed and no region.

    Gradients flow from the prototypes into `embeddings`; the assignment itself has none.

    Args:
        embeddings: (B, D, H, W) floating point; normalised here.
        seeds: (B, H, W) integer seed map; pixels equal to `ignore_index` belong to no segment.
        regions: (B, H, W) integer low-level regions, numbered per image.
        grid: (ky, kx) cells that k-means starts from in each image.
        iterations: k-means rounds.
        ignore_index: seed value of ignored pixels.

    Raises:
        ValueError: the maps are not of the embeddings' size.
    """
    batch, _, height, width = embeddings.shape
    for name, array in (("seeds", seeds), ("regions", regions)):
        if array.shape != (batch, height, width):
            raise ValueError(
                f"{name} must be {(batch, height, width)} like embeddings, got {tuple(array.shape)}"
            )
    unit = normalize(embeddings, dim=1)
    located = with_location(unit)
    valid = seeds != ignore_index
    cluster = spherical_kmeans(located.detach(), valid, grid, iterations)

    image = torch.arange(batch, device=seeds.device)[:, None, None].expand_as(cluster)
    parts = torch.stack([image[valid], cluster[valid], seeds[valid].long(), regions[valid].long()])
    number, first = _number_by_first_appearance(parts)
    index = torch.full_like(cluster, -1)
    index[valid] = number
    attributes = parts[:, first]
    return Segments(
        index=index,
        prototypes=segment_means(unit.permute(0, 2, 3, 1)[valid], number, len(first)),
        prototypes_with_location=segment_means(
            located.permute(0, 2, 3, 1)[valid], number, len(first)
        ),
        image=attributes[0],
        seed=attributes[2],
        region=attributes[3],
    )


def _number_by_first_appearance(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers the distinct columns of parts (K, N): number of each (N,), where each begins (S,)."""
    count = parts.shape[1]
    key = torch.zeros_like(parts[0])
    for part in parts:
        if count:
            part = part - part.min()
            key = key * (part.max() + 1) + part
    distinct, inverse = torch.unique(key, return_inverse=True)
    position = torch.arange(count, device=parts.device)
    first = torch.full_like(distinct, count).scatter_reduce(0, inverse, position, "amin")
    order = first.argsort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=parts.device)
    return rank[inverse], first[order]

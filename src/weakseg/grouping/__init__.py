"""Pixels to segments: spherical k-means on embedding and location, split by seed and region.

The grouping of Hwang et al., "SegSort" (ICCV 2019), as used by Ke, Hwang, Yu, "SPML" (ICLR 2021).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from weakseg.grouping.kmeans import grid_start, spherical_kmeans

__all__ = ["Segments", "segment_means", "segment_pixels", "unit_rows", "with_location"]


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


def unit_rows(embeddings: Tensor) -> Tensor:
    """Pixel vectors of unit length, one a row: (B, D, H, W) to (B * H * W, D), at least float32."""
    precise = torch.promote_types(embeddings.dtype, torch.float32)
    return normalize(embeddings.permute(0, 2, 3, 1).flatten(0, 2).to(precise), dim=1)


def with_location(rows: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Appends (y, x), each linspace(0, 1) - 0.5, to unit vectors and normalises again.

    Args:
        rows: (B * H * W, D), from `unit_rows`.
        shape: (B, H, W).

    Returns:
        (B * H * W, D + 2), unit length along dim 1.
    """
    batch, height, width = shape
    y = torch.linspace(0, 1, height, dtype=rows.dtype, device=rows.device) - 0.5
    x = torch.linspace(0, 1, width, dtype=rows.dtype, device=rows.device) - 0.5
    location = torch.stack([y.repeat_interleave(width), x.repeat(height)], dim=1)
    length = (1 + location.square().sum(dim=1, keepdim=True)).sqrt()
    return torch.cat([rows, location.repeat(batch, 1)], dim=1) / length.repeat(batch, 1)


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
    shape = (batch, height, width)
    rows = unit_rows(embeddings)
    located = with_location(rows, shape)
    valid = (seeds != ignore_index).flatten(1)
    cluster = spherical_kmeans(
        located.detach().reshape(batch, height * width, -1),
        valid,
        grid_start(height, width, grid).flatten(),
        grid[0] * grid[1],
        iterations,
    )
    image = torch.arange(batch, device=seeds.device)[:, None].expand_as(cluster)
    parts = torch.stack([image, cluster, seeds.flatten(1).long(), regions.flatten(1).long()])
    parts = parts[:, valid]
    number, first = _number_by_first_appearance(parts)
    index = torch.full_like(cluster, -1)
    index[valid] = number
    covered = valid.flatten().nonzero()[:, 0]
    if len(covered) < len(rows):
        rows, located = rows.index_select(0, covered), located.index_select(0, covered)
    image, _, seed, region = parts[:, first]
    return Segments(
        index=index.reshape(shape),
        prototypes=segment_means(rows, number, len(first)),
        prototypes_with_location=segment_means(located, number, len(first)),
        seed=seed,
        region=region,
        image=image,
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

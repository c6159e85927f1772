"""From contour strength to a hierarchy of regions, cut at any level."""

from dataclasses import dataclass

import higra as hg
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hierarchy:
    """Nested segmentations of one image: an ultrametric contour map over base regions.

    Attributes:
        base: (H, W) int32, the finest regions, numbered 0..R-1, each 4-connected.
        parents: (N,) int64, the tree over regions. Nodes 0..R-1 are the base regions, the root is
            its own parent, and a parent's number is above its children's.
        altitudes: (N,) float32, the contour strength at which a node's children merge, in 0..1;
            0 for base regions, never falling towards the root.
        contours: (H, W) float32, the contour strength that the hierarchy was built from, in 0..1.
    """

    base: NDArray[np.int32]
    parents: NDArray[np.int64]
    altitudes: NDArray[np.float32]
    contours: NDArray[np.float32]

    def cut(self, threshold: float) -> NDArray[np.int32]:
        """Regions whose boundaries are all stronger than a threshold.

        Args:
            threshold: 0 gives the base regions, 1 the whole image as one region. The regions at a
                higher threshold are unions of those at a lower one.

        Returns:
            (H, W) int32 region map, numbered from 0 without gaps.

        Raises:
            ValueError: If the threshold is not in 0..1.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}, it must lie in 0..1")
        return self.leaf_regions(threshold)[self.base]

    def cut_to(self, count: int) -> NDArray[np.int32]:
        """The finest cut with at most a given number of regions.

        Args:
            count: How many regions at most, 1 or more. Merges of equal strength happen together,
                so there can be fewer.

        Returns:
            (H, W) int32 region map, numbered from 0 without gaps.

        Raises:
            ValueError: If count is below 1.
        """
        return self.cut(self.threshold_for(count))

    def threshold_for(self, count: int) -> float:
        """The lowest threshold whose cut has at most `count` regions."""
        if count < 1:
            raise ValueError(f"count is {count}, it must be 1 or more")
        merges = np.sort(self.altitudes[self.leaves :])
        excess = self.leaves - count
        return float(merges[excess - 1]) if excess > 0 else 0.0

    def leaf_regions(self, threshold: float) -> NDArray[np.int32]:
        """(R,) int32: the region, in the cut at a threshold, of every base region."""
        parent = self.parents
        top = np.where(self.altitudes[parent] <= threshold, parent, np.arange(len(parent)))
        while True:  # altitudes grow towards the root, so each step doubles the way climbed
            higher = top[top]
            if np.array_equal(higher, top):
                break
            top = higher
        regions = np.unique(top[: self.leaves], return_inverse=True)[1]
        return regions.astype(np.int32)

    @property
    def leaves(self) -> int:
        """How many base regions there are."""
        return (len(self.parents) + 1) // 2

    def ultrametric(self) -> NDArray[np.float32]:
        """The ultrametric contour map: how strong the boundary at each pixel is in the hierarchy.

        Returns:
            (H, W) float32: for a pixel whose right or lower neighbour lies in another base region,
            the threshold at which the two merge; 0 elsewhere.
        """
        tree = hg.Tree(self.parents)
        result = np.zeros(self.base.shape, np.float32)
        for here, there in (
            ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
            ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ):
            differ = self.base[here] != self.base[there]
            a, b = self.base[here][differ], self.base[there][differ]
            if a.size:
                ancestors = tree.lowest_common_ancestor(a.astype(np.int64), b.astype(np.int64))
                part = result[here]
                part[differ] = np.maximum(part[differ], self.altitudes[ancestors])
        return result


def build_hierarchy(contours: NDArray[np.float32], *, min_area: int) -> Hierarchy:
    """Oriented watershed and ultrametric contour map (Arbelaez et al., PAMI 2011) of contours.

    Args:
        contours: (H, W) float32 contour strength in 0..1.
        min_area: Smallest base region, in pixels; smaller ones join a neighbour. An image smaller
            than this is one region.

    Returns:
        The hierarchy, at the resolution of the contours.
    """
    height, width = contours.shape
    if height * width == 1:
        one = np.zeros(1)
        return _hierarchy(one.astype(np.int64), one.astype(np.int64), one, contours)
    graph = hg.get_4_adjacency_graph((height, width))
    weights = hg.weight_graph(graph, contours.astype(np.float64), hg.WeightFunction.mean)
    tree, altitudes = hg.mean_pb_hierarchy(graph, weights, (height, width))
    superpixels = hg.CptRegionAdjacencyGraph.construct(tree.leaf_graph)["vertex_map"]
    if tree.num_leaves() > 1 and min_area > 1:
        tree, altitudes = hg.filter_small_nodes_from_tree(
            tree, altitudes, min_area, canonize_tree=False
        )
    return _hierarchy(superpixels, tree.parents(), altitudes, contours)


def _hierarchy(
    superpixels: NDArray[np.int64],
    parents: NDArray[np.int64],
    altitudes: NDArray[np.float64],
    contours: NDArray[np.float32],
) -> Hierarchy:
    """Drop the merges of altitude 0 from a binary tree, so that its leaves are real regions."""
    nodes = np.arange(len(parents))
    merged = altitudes[parents] <= 0  # a node whose parent is a merge at no cost
    merged[-1] = False
    top = np.where(merged, parents, nodes)
    while not np.array_equal(top[top], top):
        top = top[top]
    kept = np.flatnonzero(top == nodes)
    is_leaf = altitudes[kept] <= 0
    kept = np.concatenate([kept[is_leaf], kept[~is_leaf]])
    number = np.full(len(parents), -1)
    number[kept] = np.arange(len(kept))
    base = number[top[superpixels]].reshape(contours.shape)
    return Hierarchy(
        base=base.astype(np.int32),
        parents=number[parents[kept]].astype(np.int64),
        altitudes=np.clip(altitudes[kept], 0, 1).astype(np.float32),
        contours=contours,
    )

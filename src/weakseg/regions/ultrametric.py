"""From contour strength to a hierarchy of regions, cut at any level."""

from dataclasses import dataclass

import higra as hg
import numpy as np
from numpy.typing import NDArray

SIZE_IN_CUT = 0.1
SIZE_IN_COUNT = 0.75
"""How much the smaller side's size counts beside the strength of a boundary, as an exponent: in
`Hierarchy.cut` and `Hierarchy.cut_to`. Both were chosen on the val part of BSDS500."""


@dataclass(frozen=True)
class RegionTree:
    """A binary tree that merges the base regions of an image, step by step, into one.

    Attributes:
        parents: (2R-1,) int64. Nodes 0..R-1 are the base regions, the root is its own parent, and
            a parent's number is above its children's.
        altitudes: (2R-1,) float32, the level at which a node's children merge; 0 for base regions,
            never falling towards the root.
    """

    parents: NDArray[np.int64]
    altitudes: NDArray[np.float32]

    @property
    def leaves(self) -> int:
        """How many base regions there are."""
        return (len(self.parents) + 1) // 2

    def cut(self, level: float) -> NDArray[np.int32]:
        """(R,) int32: the region of every base region once all merges up to a level are made."""
        nodes = np.arange(len(self.parents))
        top = np.where(self.altitudes[self.parents] <= level, self.parents, nodes)
        return np.unique(_climb(top)[: self.leaves], return_inverse=True)[1].astype(np.int32)

    def level_for(self, count: int) -> float:
        """The lowest level that leaves at most `count` regions."""
        merges = np.sort(self.altitudes[self.leaves :])
        needed = self.leaves - count
        return float(merges[needed - 1]) if needed > 0 else 0.0


@dataclass(frozen=True)
class Hierarchy:
    """Nested segmentations of one image: an ultrametric contour map over base regions.

    Attributes:
        base: (H, W) int32, the finest regions, numbered 0..R-1, each 4-connected.
        contours: (H, W) float32, the contour strength that the hierarchy was built from, in 0..1.
        by_strength: Merges weakest boundary first; its levels are the mean contour strengths of the
            boundaries, in 0..1, a little lower where one side is small (`SIZE_IN_CUT`).
        by_size: The same with more weight on size (`SIZE_IN_COUNT`), so that specks with strong
            outlines go before faint but large regions.
    """

    base: NDArray[np.int32]
    contours: NDArray[np.float32]
    by_strength: RegionTree
    by_size: RegionTree

    def cut(self, threshold: float) -> NDArray[np.int32]:
        """Regions whose boundaries are all stronger than a threshold: a segmentation into things.

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
        return self.by_strength.cut(threshold)[self.base]

    def cut_to(self, count: int) -> NDArray[np.int32]:
        """An over-segmentation into at most a given number of regions.

        It weighs size more than `cut` does, because a threshold spends most of many regions on
        specks with strong outlines. Regions for a smaller count are unions of those for a larger
        one.

        Args:
            count: How many regions at most, 1 or more. Merges of equal weight happen together, so
                there can be fewer.

        Returns:
            (H, W) int32 region map, numbered from 0 without gaps.

        Raises:
            ValueError: If count is below 1.
        """
        if count < 1:
            raise ValueError(f"count is {count}, it must be 1 or more")
        return self.by_size.cut(self.by_size.level_for(count))[self.base]

    def ultrametric(self) -> NDArray[np.float32]:
        """The ultrametric contour map: how strong the boundary at each pixel is in the hierarchy.

        Returns:
            (H, W) float32: for a pixel whose right or lower neighbour lies in another base region,
            the threshold at which the two merge; 0 elsewhere.
        """
        tree = hg.Tree(self.by_strength.parents)
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
                part[differ] = np.maximum(part[differ], self.by_strength.altitudes[ancestors])
        return result


def build_hierarchy(contours: NDArray[np.float32], *, min_area: int) -> Hierarchy:
    """Watershed and ultrametric contour map of contours (Arbelaez et al., PAMI 2011, section 4).

    Basins merge by the mean strength of the boundary between them; the strength is not weighted
    by the boundary's orientation as it is there.

    Args:
        contours: (H, W) float32 contour strength in 0..1.
        min_area: Smallest base region, in pixels; smaller ones join a neighbour. An image smaller
            than this is one region.

    Returns:
        The hierarchy, at the resolution of the contours.
    """
    if contours.size == 1:
        alone = RegionTree(np.zeros(1, np.int64), np.zeros(1, np.float32))
        return Hierarchy(np.zeros(contours.shape, np.int32), contours, alone, alone)
    graph = hg.get_4_adjacency_graph(contours.shape)
    edges = hg.weight_graph(graph, contours.astype(np.float64), hg.WeightFunction.mean)
    basins = hg.labelisation_watershed(graph, edges)
    adjacency = hg.make_region_adjacency_graph_from_labelisation(graph, basins)
    watersheds = hg.CptRegionAdjacencyGraph.construct(adjacency)["vertex_map"].ravel()
    area = np.bincount(watersheds)
    length = hg.rag_accumulate_on_edges(adjacency, hg.Accumulators.counter, edges)
    mean = hg.rag_accumulate_on_edges(adjacency, hg.Accumulators.mean, edges)
    tree, strength = hg.binary_partition_tree_average_linkage(adjacency, mean, length)

    # The same merges in another order are the same spanning tree with other weights.
    tree, strength = hg.bpt_canonical(
        tree.leaf_graph, hg.saliency(tree, strength, handle_rag=False)
    )
    smaller = _smaller_side(tree, area)
    tree, strength = _reweighed(tree, np.where(smaller < min_area, 0, strength))
    share = 2 * _smaller_side(tree, area) / contours.size  # at most 1
    regions, by_strength = _without_free_merges(
        *_reweighed(tree, np.clip(strength, 0, 1) * share**SIZE_IN_CUT)
    )
    _, by_size = _without_free_merges(*_reweighed(tree, strength * share**SIZE_IN_COUNT))
    base = regions[watersheds].reshape(contours.shape).astype(np.int32)
    return Hierarchy(base, contours, by_strength, by_size)


def _smaller_side(tree: hg.Tree, area: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) area of the smaller child of every node."""
    areas = hg.attribute_area(tree, vertex_area=area.astype(np.float64))
    smaller = hg.accumulate_parallel(tree, areas, hg.Accumulators.min)
    smaller[: tree.num_leaves()] = 0
    return np.asarray(smaller)


def _reweighed(
    tree: hg.Tree, altitudes: NDArray[np.float64]
) -> tuple[hg.Tree, NDArray[np.float64]]:
    spanning_tree = hg.CptBinaryHierarchy.get_mst(tree)
    return hg.bpt_canonical(spanning_tree, altitudes[tree.num_leaves() :])  # type: ignore[no-any-return]


def _without_free_merges(
    tree: hg.Tree, altitudes: NDArray[np.float64]
) -> tuple[NDArray[np.int64], RegionTree]:
    """Make the merges of altitude 0; the (leaves,) region of each leaf, and the tree over them.

    Regions are numbered by their first leaf, so that trees with the same free merges agree.
    """
    parents, leaves = tree.parents(), tree.num_leaves()
    nodes = np.arange(len(parents))
    top = _climb(np.where(altitudes[parents] <= 0, parents, nodes))
    roots, first, region = np.unique(top[:leaves], return_index=True, return_inverse=True)
    order = np.argsort(first)
    inner = np.flatnonzero(altitudes > 0)
    kept = np.concatenate([roots[order], inner])
    number = np.full(len(parents), -1)
    number[kept] = np.arange(len(kept))
    levels = altitudes[kept].astype(np.float32)
    return np.argsort(order)[region], RegionTree(number[parents[kept]].astype(np.int64), levels)


def _climb(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The topmost ancestor of every node, where a node without one is its own parent."""
    while True:  # each round doubles the way climbed
        higher = parents[parents]
        if np.array_equal(higher, parents):
            return higher
        parents = higher

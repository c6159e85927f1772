"""From contour strength to a hierarchy of regions, cut at any level."""

from dataclasses import dataclass
from functools import cached_property

import higra as hg
import numpy as np
from numpy.typing import NDArray

from weakseg.regions.merging import RegionGraph, RegionTree, merge_regions, region_graph
from weakseg.regions.watershed import base_regions

SIZE_IN_CUT = 0.1
SIZE_IN_COUNT = 0.5
"""How much the smaller side's size counts beside the boundary, as an exponent: in `Hierarchy.cut`
and `Hierarchy.cut_to`. Both were chosen on the val part of BSDS500."""


@dataclass(frozen=True)
class Hierarchy:
    """Nested segmentations of one image: an ultrametric contour map over base regions.

    Attributes:
        base: (H, W) int32, the finest regions, numbered 0..R-1, each 4-connected.
        contours: (H, W) float32, the contour strength that the hierarchy was built from, in 0..1.
        graph: The base regions and the boundaries between them (of the shrunk image where it was
            shrunk).
    """

    base: NDArray[np.int32]
    contours: NDArray[np.float32]
    graph: RegionGraph

    @cached_property
    def by_strength(self) -> RegionTree:
        """Merges weakest boundary first; levels are strengths in 0..1 (see `merge_regions`)."""
        return merge_regions(self.graph, size=SIZE_IN_CUT)

    @cached_property
    def by_size(self) -> RegionTree:
        """The same with more weight on size, so that specks go before faint but large regions."""
        return merge_regions(self.graph, size=SIZE_IN_COUNT)

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
        """An over-segmentation into a given number of regions.

        It weighs size more than `cut` does, because a threshold spends most of many regions on
        specks with strong outlines. Regions for a smaller count are unions of those for a larger
        one.

        Args:
            count: How many regions, 1 or more. There are fewer if there are fewer base regions.

        Returns:
            (H, W) int32 region map, numbered from 0 without gaps.

        Raises:
            ValueError: If count is below 1.
        """
        if count < 1:
            raise ValueError(f"count is {count}, it must be 1 or more")
        return self.by_size.cut_to(count)[self.base]

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


def build_hierarchy(
    contours: NDArray[np.float32],
    *,
    ridges: NDArray[np.float32],
    lab: NDArray[np.float32],
    min_area: int,
) -> Hierarchy:
    """Watershed and ultrametric contour map (after Arbelaez et al., PAMI 2011, section 4).

    As there, basins merge by the mean strength of the boundary between them. The strength is not
    weighted by the boundary's orientation, but by the contrast and the size of the two sides.

    Args:
        contours: (H, W) float32 contour strength in 0..1: how much a boundary means.
        ridges: (H, W) float32, 0 or more: where boundaries can run at all.
        lab: (H, W, 3) float32, the image in Lab colours.
        min_area: Smallest base region, in pixels; smaller ones join a neighbour. An image smaller
            than this is one region.

    Returns:
        The hierarchy, at the resolution of the contours.
    """
    base = base_regions(ridges, min_area=min_area)
    return Hierarchy(base, contours, region_graph(base, contours, lab))

"""The finest regions of a photograph: basins of its ridges, without debris."""

import higra as hg
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def base_regions(ridges: NDArray[np.float32], *, min_area: int) -> NDArray[np.int32]:
    """Watershed basins of a map of ridges, the small ones joined to a neighbour.

    A basin joins the neighbour to which the mean of the ridge between them is lowest, as often as
    it takes to reach the smallest area. Basins between which there is no ridge are one region.

    Args:
        ridges: (H, W) float32, 0 or more, high where a boundary may run.
        min_area: Smallest region, in pixels. An image smaller than this is one region.

    Returns:
        (H, W) int32, 4-connected regions numbered from 0 without gaps.
    """
    if ridges.size == 1:
        return np.zeros(ridges.shape, np.int32)
    graph = hg.get_4_adjacency_graph(ridges.shape)
    edges = hg.weight_graph(graph, ridges.astype(np.float64), hg.WeightFunction.mean)
    basins = hg.labelisation_watershed(graph, edges)
    adjacency = hg.make_region_adjacency_graph_from_labelisation(graph, basins)
    basin = hg.CptRegionAdjacencyGraph.construct(adjacency)["vertex_map"].ravel()
    length = hg.rag_accumulate_on_edges(adjacency, hg.Accumulators.counter, edges)
    mean = hg.rag_accumulate_on_edges(adjacency, hg.Accumulators.mean, edges)
    tree, height = hg.binary_partition_tree_average_linkage(adjacency, mean, length)

    # The merges as edges of a spanning tree of the basins, an edge a merge.
    tree, height = hg.bpt_canonical(tree.leaf_graph, hg.saliency(tree, height, handle_rag=False))
    leaves = tree.num_leaves()
    areas = hg.attribute_area(tree, vertex_area=np.bincount(basin).astype(np.float64))
    smaller = hg.accumulate_parallel(tree, areas, hg.Accumulators.min)
    joined = ((smaller < min_area) | (height <= 0))[leaves:]
    a, b = hg.CptBinaryHierarchy.get_mst(tree).edge_list()
    pairs = coo_array((joined[joined], (a[joined], b[joined])), (leaves, leaves))
    region = connected_components(pairs, directed=False)[1]
    return region[basin].reshape(ridges.shape).astype(np.int32)  # type: ignore[no-any-return]

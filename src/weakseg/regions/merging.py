"""The base regions of a photograph as a graph, merged one pair after the other."""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

CONTRAST = 0.15
"""How much the difference of two regions' colours counts beside the strength of the boundary
between them, as exponents that add to 1; chosen on the val part of BSDS500."""

FULL_CONTRAST = 50.0
"""Difference of mean Lab colours from which two regions could not differ more."""

LEAST_CONTRAST = 0.01
"""Contrast of regions of one colour: a contour between them still counts."""


@dataclass(frozen=True)
class RegionGraph:
    """What merging needs to know of R base regions and the E pairs that touch.

    Attributes:
        pairs: (E, 2) int64, neighbouring regions, the lower number first.
        length: (E,) int64, pixel pairs on the boundary.
        strength: (E,) float64, sum of the contour strength over those pairs.
        area: (R,) int64, pixels.
        colour: (R, 3) float64, mean Lab.
    """

    pairs: NDArray[np.int64]
    length: NDArray[np.int64]
    strength: NDArray[np.float64]
    area: NDArray[np.int64]
    colour: NDArray[np.float64]


@dataclass(frozen=True)
class RegionTree:
    """A binary tree that merges the base regions of an image, step by step, into one.

    Attributes:
        parents: (2R-1,) int64. Nodes 0..R-1 are the base regions, R, R+1, ... the merges in the
            order in which they were made; the root is its own parent.
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
        return self._made(self.altitudes <= level)

    def cut_to(self, count: int) -> NDArray[np.int32]:
        """(R,) int32: the same once as many merges are made as leave `count` regions."""
        return self._made(np.arange(len(self.parents)) < 2 * self.leaves - count)

    def _made(self, merges: NDArray[np.bool_]) -> NDArray[np.int32]:
        nodes = np.arange(len(self.parents))
        top = np.where(merges[self.parents], self.parents, nodes)
        while not np.array_equal(higher := top[top], top):  # each round doubles the way climbed
            top = higher
        return np.unique(top[: self.leaves], return_inverse=True)[1].astype(np.int32)


def region_graph(
    base: NDArray[np.int32], contours: NDArray[np.float32], lab: NDArray[np.float32]
) -> RegionGraph:
    """The graph of a region map.

    Args:
        base: (H, W) int32, regions numbered 0..R-1.
        contours: (H, W) float32 contour strength; between two pixels it is their mean.
        lab: (H, W, 3) float32, Lab colours.
    """
    area = np.bincount(base.ravel())
    sums = [np.bincount(base.ravel(), lab[..., channel].ravel()) for channel in range(3)]
    keys, strengths = [], []
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        differ = base[here] != base[there]
        a, b = base[here][differ].astype(np.int64), base[there][differ]
        keys.append(np.minimum(a, b) * len(area) + np.maximum(a, b))
        strengths.append((contours[here][differ] + contours[there][differ]) / 2)
    pairs, which = np.unique(np.concatenate(keys), return_inverse=True)
    return RegionGraph(
        pairs=np.stack(np.divmod(pairs, len(area)), 1),
        length=np.bincount(which, minlength=len(pairs)),
        strength=np.bincount(which, np.concatenate(strengths), len(pairs)).astype(np.float64),
        area=area,
        colour=np.stack(sums, 1) / area[:, None],
    )


def merge_regions(graph: RegionGraph, *, size: float) -> RegionTree:
    """Merge the most alike neighbours, again and again, until one region is left.

    What keeps two regions A and B apart is s^(1-k) d^k m^size, where s is the mean contour strength
    between them, d in 0..1 the difference of their mean colours, k is `CONTRAST`, and m the share
    that the smaller side has of half the image.

    Args:
        graph: Base regions, all connected.
        size: Exponent of m: 0 looks at boundaries alone, 1 makes regions about equally large.

    Returns:
        The tree; its altitudes lie in 0..1.
    """
    leaves = len(graph.area)
    nodes = 2 * leaves - 1
    half = float(graph.area.sum()) / 2
    area: list[float] = (graph.area / half).tolist()
    colour: list[list[float]] = (graph.colour / FULL_CONTRAST).tolist()
    # A boundary is (length, sum of strength).
    around: list[dict[int, tuple[float, float]]] = [{} for _ in range(leaves)]
    for (a, b), *boundary in zip(
        graph.pairs.tolist(), graph.length.tolist(), graph.strength.tolist(), strict=True
    ):
        around[a][b] = around[b][a] = (boundary[0], boundary[1])

    def apart(a: int, b: int) -> float:
        length, strength = around[a][b]
        (la, aa, ba), (lb, ab, bb) = colour[a], colour[b]
        difference = ((la - lb) ** 2 + (aa - ab) ** 2 + (ba - bb) ** 2) ** 0.5
        contrast = min(1.0, difference + LEAST_CONTRAST)
        smaller = min(area[a], area[b])
        mean = strength / length
        return float(mean ** (1 - CONTRAST) * contrast**CONTRAST * smaller**size)

    heap = [(apart(a, b), a, b) for a, b in graph.pairs.tolist()]
    heapify(heap)
    parents = list(range(nodes))
    altitudes = [0.0] * nodes
    level = 0.0
    for new in range(leaves, nodes):
        while True:  # a pair of which one has merged meanwhile is out of date
            weight, a, b = heappop(heap)
            if parents[a] == a and parents[b] == b:
                break
        level = max(level, weight)
        parents[a] = parents[b] = new
        altitudes[new] = level
        area.append(area[a] + area[b])
        shares = area[a] / area[new], area[b] / area[new]
        colour.append(
            [shares[0] * x + shares[1] * y for x, y in zip(colour[a], colour[b], strict=True)]
        )
        around.append(_joined(around, a, b, new))
        for other in around[new]:
            heappush(heap, (apart(other, new), other, new))
    return RegionTree(np.array(parents), np.array(altitudes, np.float32))


def _joined(
    around: list[dict[int, tuple[float, float]]], a: int, b: int, new: int
) -> dict[int, tuple[float, float]]:
    """The boundaries of the region that a and b become; its neighbours learn its number."""
    joined = around[a]
    del joined[b]
    for other, (length, strength) in around[b].items():
        if other != a:
            before = joined.get(other, (0.0, 0.0))
            joined[other] = (before[0] + length, before[1] + strength)
    around[b] = {}
    for other, boundary in joined.items():
        theirs = around[other]
        theirs.pop(a, None)
        theirs.pop(b, None)
        theirs[new] = boundary
    around[a] = {}
    return joined

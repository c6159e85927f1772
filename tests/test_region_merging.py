"""Base regions and their merging, against a plain reckoning from the pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from weakseg.regions.merging import CONTRAST, FULL_CONTRAST, merge_regions, region_graph
from weakseg.regions.watershed import base_regions


def grey(lightness):
    """Lab colours of a grey image."""
    return np.stack([lightness, np.zeros_like(lightness), np.zeros_like(lightness)], -1)


def stripes(widths, lightness, strengths):
    """Upright stripes: base, contours and Lab; strengths[i] between the stripes i and i + 1."""
    base = np.repeat(np.arange(len(widths)), widths)[None].repeat(4, 0).astype(np.int32)
    contours = np.zeros(base.shape, np.float32)
    for right, strength in zip(np.cumsum(widths)[:-1], strengths, strict=True):
        contours[:, right - 1 : right + 1] = strength
    return base, contours, grey(np.array(lightness, np.float32)[base])


def test_graph_of_stripes():
    graph = region_graph(*stripes((3, 2, 5), (10, 20, 60), (0.25, 0.5)))
    assert graph.pairs.tolist() == [[0, 1], [1, 2]]
    assert graph.length.tolist() == [4, 4]
    assert (graph.strength / graph.length).tolist() == [0.25, 0.5]
    assert graph.area.tolist() == [12, 8, 20]
    assert graph.colour[:, 0].tolist() == [10, 20, 60]


@pytest.mark.parametrize(
    ("widths", "lightness", "strengths", "size", "first"),
    [
        ((4, 4, 4), (0, 9, 18), (0.2, 0.4), 0.0, (0, 1)),  # the weaker boundary
        ((4, 4, 4), (0, 90, 91), (0.3, 0.3), 0.0, (1, 2)),  # the fainter contrast
        ((9, 4, 2), (0, 9, 18), (0.3, 0.3), 0.5, (1, 2)),  # the smaller region
        ((2, 4, 9), (0, 9, 18), (0.3, 0.3), 0.5, (0, 1)),
        ((9, 4, 2), (0, 9, 18), (0.3, 0.9), 0.1, (0, 1)),  # unless strength outweighs its size
    ],
    ids=["strength", "contrast", "right smaller", "left smaller", "strong speck"],
)
def test_what_merges_first(widths, lightness, strengths, size, first):
    tree = merge_regions(region_graph(*stripes(widths, lightness, strengths)), size=size)
    found = tree.cut_to(2)
    assert {(a, b) for a, b in ((0, 1), (1, 2)) if found[a] == found[b]} == {first}


def test_altitude_is_the_formula():
    graph = region_graph(*stripes((2, 6), (40, 60), (0.3,)))
    tree = merge_regions(graph, size=0.5)
    contrast = 20 / FULL_CONTRAST + 0.01
    share = 2 * 2 / 8
    expected = 0.3 ** (1 - CONTRAST) * contrast**CONTRAST * share**0.5
    assert tree.altitudes[2] == pytest.approx(expected, rel=1e-5)
    assert tree.parents.tolist() == [2, 2, 2]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_each_step_merges_the_most_alike_of_all(seed, blocks, size):
    """Every step again from the pixels, without a graph that is kept up to date."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, blocks, (3, 3)).repeat(3, 0).repeat(3, 1)
    base = np.unique(base, return_inverse=True)[1].reshape(base.shape).astype(np.int32)
    contours = rng.random(base.shape).astype(np.float32)
    lab = rng.uniform(0, 100, (*base.shape, 3)).astype(np.float32)
    graph = region_graph(base, contours, lab)
    tree = merge_regions(graph, size=size)
    assert (tree.altitudes[tree.parents] >= tree.altitudes).all()
    assert tree.altitudes.max() <= 1
    for count in range(tree.leaves, 1, -1):
        regions, after = tree.cut_to(count)[base], tree.cut_to(count - 1)[base]
        assert regions.max() + 1 == count
        best = min(
            (_apart(regions, contours, lab, a, b, size), a, b) for a, b in _neighbours(regions)
        )
        inside = np.isin(regions, best[1:])
        assert len(np.unique(after[inside])) == 1  # of random numbers no two pairs are equal
        assert not np.isin(after[~inside], after[inside]).any()


def _neighbours(regions):
    pairs = np.concatenate(
        [
            np.stack([regions[:, :-1], regions[:, 1:]], -1).reshape(-1, 2),
            np.stack([regions[:-1], regions[1:]], -1).reshape(-1, 2),
        ]
    )
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1)
    return np.unique(pairs, axis=0).tolist()


def _apart(regions, contours, lab, a, b, size):
    found = []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        one, other = regions[here], regions[there]
        between = ((one == a) & (other == b)) | ((one == b) & (other == a))
        found.append(((contours[here] + contours[there]) / 2)[between])
    strength = np.concatenate(found).mean()
    difference = np.linalg.norm(lab[regions == a].mean(0) - lab[regions == b].mean(0))
    contrast = min(1, difference / FULL_CONTRAST + 0.01)
    share = 2 * min((regions == a).sum(), (regions == b).sum()) / regions.size
    return strength ** (1 - CONTRAST) * contrast**CONTRAST * share**size


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.integers(1, 40))
def test_base_regions_are_whole_and_large_enough(seed, height, width, min_area):
    ridges = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    base = base_regions(ridges, min_area=min_area)
    assert base.dtype == np.int32
    assert np.array_equal(np.unique(base), np.arange(base.max() + 1))
    assert np.bincount(base.ravel()).min() >= min(min_area, base.size)
    assert all(label(base == region)[1] == 1 for region in range(base.max() + 1))


def test_no_ridge_no_boundary():
    assert base_regions(np.zeros((7, 9), np.float32), min_area=1).max() == 0

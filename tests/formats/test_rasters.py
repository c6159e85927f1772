from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from roundtrip import masks
from skimage.draw import polygon2mask

from weakseg.formats.rasters import Patch, components, fill_rings, join_holes, outline


@pytest.mark.parametrize(
    ("rings", "pixels"),
    [
        ([[(1, 1), (3, 1), (3, 2), (1, 2)]], {(1, 1), (2, 1)}),
        ([[(1.4, 1.4), (3.4, 1.4), (3.4, 2.4), (1.4, 2.4)]], {(1, 1), (2, 1)}),
        # Through the centres: the left and the upper edge belong to it.
        ([[(1.5, 1.5), (3.5, 1.5), (3.5, 2.5), (1.5, 2.5)]], {(1, 1), (2, 1)}),
        ([[(0, 0), (3, 0), (0, 3)]], {(0, 0), (1, 0), (0, 1)}),
        # A hole, whichever way round.
        (
            [[(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 1), (2, 1), (2, 2), (1, 2)]],
            {(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2), (2, 2)},
        ),
        # Partly and wholly outside.
        ([[(-1e7, -1e7), (1, -1e7), (1, 1e7), (-1e7, 1e7)]], {(0, 0), (0, 1), (0, 2), (0, 3)}),
        ([[(9, 9), (12, 9), (12, 12)]], set()),
        ([[(-9, -9), (-2, -9), (-2, -2)]], set()),
        # Without area.
        ([[(1, 1), (2, 2), (3, 3)]], set()),
        ([[(1, 1), (1, 1), (1, 1)]], set()),
    ],
)
def test_a_polygon_holds_the_pixels_whose_centres_it_holds(
    rings: Any, pixels: set[tuple[int, int]]
) -> None:
    filled = fill_rings(rings, (4, 5)).on((4, 5))
    assert {(int(x), int(y)) for y, x in np.argwhere(filled)} == pixels


@given(st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 20)), min_size=3, max_size=8))
def test_filling_agrees_with_scikit_image(ring: list[tuple[float, float]]) -> None:
    x, y = np.array(ring).T
    # scikit-image counts pixels that a ring without area passes through.
    assume(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) > 1e-3)
    filled = fill_rings([ring], (16, 20)).on((16, 20))
    centre = np.array(ring)[:, ::-1] - 0.5
    # They may differ on an edge only: shifted by nearly nothing both ways, one agrees.
    options = [polygon2mask((16, 20), centre + s) for s in ((1e-7, 1e-7), (-1e-7, -1e-7))]
    options += [polygon2mask((16, 20), centre + s) for s in ((1e-7, -1e-7), (-1e-7, 1e-7))]
    agree = np.logical_or.reduce([filled == option for option in options])
    assert agree.all()


@given(masks())
def test_outlines_give_back_their_components(mask: np.ndarray) -> None:
    for value in np.unique(mask).tolist():
        patches = [*components(mask, value)]
        whole = np.zeros(mask.shape, int)
        for patch in patches:
            rings = outline(patch)
            np.testing.assert_array_equal(
                fill_rings(rings, mask.shape).on(mask.shape), patch.on(mask.shape)
            )
            joined = fill_rings([join_holes(rings)], mask.shape).on(mask.shape)
            np.testing.assert_array_equal(joined, patch.on(mask.shape))
            whole += joined
        np.testing.assert_array_equal(whole, mask == value)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_outlines_of_noise(seed: int) -> None:
    mask = np.random.default_rng(seed).random((24, 24)) < 0.6
    for patch in components(mask, True):
        joined = join_holes(outline(patch))
        np.testing.assert_array_equal(
            fill_rings([joined], mask.shape).on(mask.shape), patch.on(mask.shape)
        )


def test_simplified_outlines_have_fewer_corners_and_stay_near() -> None:
    y, x = np.mgrid[:80, :80]
    disc = (x - 40) ** 2 + (y - 40) ** 2 < 30**2
    exact, simple = (outline(Patch((0, 0), disc), t)[0] for t in (0, 1))
    assert len(simple) < len(exact) / 4
    assert (fill_rings([simple], disc.shape).on(disc.shape) != disc).sum() < 2 * len(exact)

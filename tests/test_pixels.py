import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.errors import InputError
from weakseg.training.grid_maps import GridMaps
from weakseg.training.pixels import LabelledPixels

CLASSES = 3


class Features:
    """Stands for a cache: the feature of a position is its number among all of them."""

    def __init__(self, maps):
        self.offsets = maps.offsets

    def first_rows(self):
        return self.offsets[:-1]

    def rows(self, rows):
        return np.asarray(rows, np.float16)[:, None]


def pixels_of(*masks):
    maps = GridMaps(np.array(mask, np.int32).reshape(1, -1) for mask in masks)
    context = torch.arange(len(masks))[:, None].float()
    return LabelledPixels(Features(maps), maps, context, CLASSES), maps


masks = st.lists(st.lists(st.integers(0, CLASSES), min_size=1, max_size=9), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(0, 9))
def test_drawn_positions_are_labelled_and_belong_to_their_image(given_masks, seed):
    if not any(value < CLASSES for mask in given_masks for value in mask):
        with pytest.raises(InputError, match="no pixel"):
            pixels_of(*given_masks)
        return
    pixels, maps = pixels_of(*given_masks)
    features, context, labels = pixels.draw(np.random.default_rng(seed), 32)
    rows = features.flatten().long().numpy()
    assert (labels < CLASSES).all()
    np.testing.assert_array_equal(labels.flatten().numpy(), maps.values[rows])
    image = np.searchsorted(maps.offsets, rows, side="right") - 1
    np.testing.assert_array_equal(context[:, 0].numpy(), image)


def test_every_labelled_position_is_drawn_and_every_image_as_often():
    pixels, _ = pixels_of([3, 0, 3], [3, 3], [1, 2, 1, 3, 2, 2, 2, 2])
    features, context, _ = pixels.draw(np.random.default_rng(0), 4000)
    assert set(features.flatten().long().tolist()) == {1, 5, 6, 7, 9, 10, 11, 12}
    counts = np.bincount(context[:, 0].long().numpy())
    assert counts.tolist() == pytest.approx([2000, 0, 2000], abs=150)


def test_shares_are_those_of_what_is_drawn():
    pixels, _ = pixels_of([3, 0, 3], [3, 3], [1, 2, 1, 3])
    assert pixels.shares.tolist() == pytest.approx([1 / 2, 2 / 6, 1 / 6])


def test_many_positions_take_little_more_memory_than_their_numbers():
    rng = np.random.default_rng(0)
    maps = GridMaps(rng.integers(0, CLASSES, (100, 100)) for _ in range(60))
    tracemalloc.start()
    try:
        pixels = LabelledPixels(Features(maps), maps, torch.zeros(60, 1), CLASSES)
        assert pixels.shares.sum() == pytest.approx(1)
        assert tracemalloc.get_traced_memory()[1] < 12 * len(maps.values)
    finally:
        tracemalloc.stop()

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.training.grid_maps import GridMaps, nearest

FIRST = np.arange(6).reshape(2, 3)
SECOND = np.arange(10, 14).reshape(4, 1)


@pytest.fixture
def maps():
    return GridMaps([FIRST, SECOND])


def test_maps_of_several_sizes_come_back(maps):
    assert len(maps) == 2
    np.testing.assert_array_equal(maps[0], FIRST)
    np.testing.assert_array_equal(maps[1], SECOND)
    assert maps.values.tolist() == [*range(6), *range(10, 14)]


@pytest.mark.parametrize(
    ("pick", "expected"),
    [
        ((0, 0, 0), [[0, 1], [3, 4]]),
        ((0, 0, 1), [[1, 2], [4, 5]]),
        ((0, 1, 2), [[5, 255], [255, 255]]),
        ((1, 2, 0), [[12, 255], [13, 255]]),
        ((1, 3, 0), [[13, 255], [255, 255]]),
        ((0, 2, 3), [[255, 255], [255, 255]]),
    ],
)
def test_crops_are_filled_beyond_the_image(maps, pick, expected):
    assert maps.crops([pick], 2, 2, 255)[0].tolist() == expected


def test_crops_make_a_batch(maps):
    batch = maps.crops([(1, 0, 0), (0, 0, 0), (1, 0, 0)], 4, 3, 9)
    assert batch.shape == (3, 4, 3)
    assert batch[0].equal(batch[2])
    assert batch[1, :2].tolist() == FIRST.tolist()


def test_no_maps_at_all():
    empty = GridMaps([])
    assert len(empty) == 0
    assert empty.values.size == 0


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="70000"):
        GridMaps([np.array([[0, 70_000]])])
    with pytest.raises(ValueError, match="-1"):
        GridMaps([np.array([[0, -1]])])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2, 4), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ((1, 2), [[5, 7]]),
        ((2, 2), [[1, 3], [5, 7]]),
        ((1, 1), [[6]]),
        ((4, 4), [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7]]),
    ],
)
def test_nearest_takes_the_pixel_under_a_cell_centre(size, expected):
    assert nearest(np.arange(8).reshape(2, 4), size).tolist() == expected


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60))
def test_nearest_never_leaves_the_array(height, width, h, w):
    array = np.arange(height * width).reshape(height, width)
    picked = nearest(array, (h, w))
    assert picked.shape == (h, w)
    # In order, and of the four quarters each where the grid has two cells or more a side.
    assert (np.diff(picked[:, 0]) >= 0).all()
    assert (np.diff(picked[0]) >= 0).all()

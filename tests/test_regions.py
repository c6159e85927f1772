import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import label
from skimage import data

from weakseg.errors import InputError
from weakseg.regions import (
    Hierarchy,
    hierarchy,
    read_region_map,
    region_map,
    region_map_cached,
)


@pytest.fixture(scope="module")
def photo():
    return data.astronaut()[:240, :320]


def is_region_map(regions, shape):
    return (
        regions.shape == shape
        and regions.dtype == np.int32
        and np.array_equal(np.unique(regions), np.arange(regions.max() + 1))
    )


def four_blocks(size=40):
    image = np.zeros((size, size, 3), np.uint8)
    half = size // 2
    image[:half, half:] = (200, 30, 30)
    image[half:, :half] = (30, 200, 30)
    image[half:, half:] = (30, 30, 200)
    return image


def test_blocks_become_their_regions():
    image = four_blocks()
    expected = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True)[1].reshape(40, 40)
    found = region_map(image, method="gradient", count=4)
    table = np.zeros((4, 4), int)
    np.add.at(table, (expected, found), 1)
    assert (table.max(1) >= 396).all()  # of 400; smoothing rounds the corner where all four meet
    assert len(set(table.argmax(1))) == 4


def test_cuts_are_nested_and_coarser(photo):
    tree = hierarchy(photo, contours="gradient")
    finer = None
    for threshold in np.linspace(0, 1, 21):
        cut = tree.cut(float(threshold))
        assert is_region_map(cut, photo.shape[:2])
        if finer is not None:
            pairs = np.unique(finer.astype(np.int64) * 10**6 + cut)
            assert len(pairs) == finer.max() + 1  # each finer region lies in one coarser region
        finer = cut
    assert finer.max() == 0


def test_regions_are_connected_and_no_debris(photo):
    cut = hierarchy(photo, contours="gradient", min_area=20).cut(0)
    assert np.bincount(cut.ravel()).min() >= 20
    for region in range(0, cut.max() + 1, 37):
        assert label(cut == region)[1] == 1


@pytest.mark.parametrize("count", [1, 2, 50, 200, 10**6])
def test_cut_to_count(photo, count):
    tree = hierarchy(photo, contours="gradient")
    regions = tree.cut_to(count)
    assert regions.max() + 1 == min(count, tree.by_size.leaves)


def test_same_image_same_regions(photo):
    assert np.array_equal(region_map(photo), region_map(photo.copy()))


def test_hierarchy_parts_fit_together(photo):
    tree = hierarchy(photo, contours="gradient")
    assert isinstance(tree, Hierarchy)
    assert tree.contours.shape == photo.shape[:2]
    assert 0 <= tree.contours.min() <= tree.contours.max() <= 1
    for merges in (tree.by_strength, tree.by_size):
        assert merges.leaves == tree.base.max() + 1
        assert (merges.altitudes[merges.parents] >= merges.altitudes).all()
    ultrametric = tree.ultrametric()
    threshold = float(np.quantile(tree.by_strength.altitudes[tree.by_strength.leaves :], 0.7))
    cut = tree.cut(threshold)
    beside = np.zeros(cut.shape, bool)
    beside[:, :-1] |= cut[:, :-1] != cut[:, 1:]
    beside[:-1] |= cut[:-1] != cut[1:]
    assert np.array_equal(ultrametric > threshold, beside)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (2, 1), (1, 700), (700, 1), (3, 900), (8, 8), (9, 8, 1), (5, 7, 4)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
@pytest.mark.parametrize("method", ["learned", "gradient", "slic", "none"])
def test_odd_images_give_valid_regions(shape, dtype, method):
    noise = np.random.default_rng(0).integers(0, 60000, shape)
    image = (
        noise % 256 if dtype == np.uint8 else noise % 2 if dtype == np.bool_ else noise
    ).astype(dtype)
    assert is_region_map(region_map(image, method=method, count=20), shape[:2])


@pytest.mark.parametrize("value", [0, 255])
def test_uniform_image_is_one_region(value):
    assert region_map(np.full((50, 60, 3), value, np.uint8)).max() == 0


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3))),
    st.integers(1, 40),
)
def test_any_small_image(image, count):
    tree = hierarchy(image, contours="gradient", min_area=4)
    for regions in (tree.cut_to(count), tree.cut(0), tree.cut(1)):
        assert is_region_map(regions, image.shape[:2])
    assert tree.cut_to(count).max() < count
    assert tree.cut(1).max() == 0


def test_sixteen_bits_keep_what_eight_bits_show():
    grey = data.camera()[:100, :120]
    deep = grey.astype(np.uint16) * 16  # a 12-bit camera
    low, high = int(grey.min()), int(grey.max())
    stretched = np.rint((grey.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
    assert np.array_equal(region_map(deep), region_map(stretched))


def test_large_image_is_shrunk_and_regions_scaled_back(photo):
    tree = hierarchy(photo, contours="gradient", max_pixels=20_000)
    assert tree.base.shape == tree.contours.shape == photo.shape[:2]
    assert is_region_map(tree.cut_to(50), photo.shape[:2])


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((4, 5, 7), np.uint8),
        np.zeros((4,), np.uint8),
        np.array("x"),
    ],
)
def test_no_image(bad):
    with pytest.raises(InputError, match="not an image"):
        hierarchy(bad)


def test_bad_numbers(photo):
    with pytest.raises(ValueError, match="count"):
        region_map(photo, count=0)
    with pytest.raises(ValueError, match="threshold"):
        hierarchy(four_blocks()).cut(1.5)


def test_cache_is_by_content(tmp_path, photo):
    first, file = region_map_cached(photo, tmp_path, method="gradient", count=60)
    assert [*tmp_path.iterdir()] == [file]
    assert np.array_equal(first, region_map(photo, method="gradient", count=60))
    again, _ = region_map_cached(photo.copy(), tmp_path, method="gradient", count=60)
    assert np.array_equal(first, again)
    assert len(list(tmp_path.iterdir())) == 1
    other = photo.copy()
    other[0, 0] += 1
    region_map_cached(other, tmp_path, method="gradient", count=60)
    region_map_cached(photo, tmp_path, method="gradient", count=61)
    assert len(list(tmp_path.iterdir())) == 3


def test_damaged_cache_file_is_made_anew(tmp_path, photo):
    first, file = region_map_cached(photo, tmp_path, method="slic", count=60)
    file.write_bytes(file.read_bytes()[:50])
    assert np.array_equal(first, region_map_cached(photo, tmp_path, method="slic", count=60)[0])
    assert np.array_equal(first, read_region_map(file))


@pytest.mark.parametrize("suffix", ["8.png", "16.png", ".npy", ".npz"])
def test_region_maps_of_users(tmp_path, suffix):
    regions = np.array([[7, 7, 200], [9, 200, 200]])
    path = tmp_path / f"regions{suffix}"
    if suffix == "8.png":
        Image.fromarray(regions.astype(np.uint8)).save(path)
    elif suffix == "16.png":
        Image.fromarray((regions * 300).astype(np.uint16)).save(path)
    elif suffix == ".npy":
        np.save(path, regions)
    else:
        np.savez_compressed(path, anything=regions)
    found = read_region_map(path, size=(2, 3))
    assert found.dtype == np.int32
    assert found.tolist() == [[0, 0, 2], [1, 2, 2]]


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.png", lambda p: Image.new("RGB", (3, 2)).save(p), "one integer a pixel"),
        ("a.png", lambda p: Image.new("L", (4, 2)).save(p), "4 x 2 pixels; expected 3 x 2"),
        ("a.png", lambda p: p.write_bytes(b"\x89PNG\r\n"), "cannot be read"),
        ("a.png", lambda p: None, "cannot be read"),
        ("a.npy", lambda p: np.save(p, np.zeros((2, 3))), "float64"),
        ("a.npy", lambda p: p.write_bytes(b"none"), "cannot be read"),
        ("a.npz", lambda p: np.savez(p, a=np.zeros(2), b=np.zeros(2)), "2 arrays"),
        ("a.npz", lambda p: p.write_bytes(b"PK none"), "cannot be read"),
    ],
)
def test_unusable_region_maps(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        read_region_map(path, size=(2, 3))
    assert str(path) in str(caught.value)

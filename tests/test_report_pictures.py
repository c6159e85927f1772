"""Pictures on tiny arrays, pixel by pixel."""

import numpy as np
import pytest

from weakseg.annotation import Annotation, Area, Box, Point, Scribble
from weakseg.dataset import DatasetInfo
from weakseg.errors import InputError
from weakseg.images import palette
from weakseg.report import draw_annotation, overlay, pca_colours
from weakseg.report.pictures import (
    boundaries,
    class_colours,
    draw_boundaries,
    draw_seeds,
    ink_on,
    mosaic,
    shrink,
)

INFO = DatasetInfo("d", ("ground", "coral", "sand"), "ground")
RED, GREEN = palette(3)[1], palette(3)[2]


def grey(height=40, width=60, value=100):
    return np.full((height, width, 3), value, np.uint8)


def where(picture, colour):
    """(x, y) of the pixels of one colour."""
    y, x = np.nonzero((picture == colour).all(2))
    return {*zip(x.tolist(), y.tolist(), strict=True)}


def test_overlay_blends_classes_dims_background_and_marks_boundaries():
    mask = np.zeros((9, 9), np.uint8)
    mask[:, 5:] = 1
    drawn = overlay(grey(9, 9), mask, class_colours(INFO), 0.5)
    assert drawn.dtype == np.uint8
    assert drawn[4, 7].tolist() == [114, 50, 50]  # half way from 100 to (128, 0, 0)
    assert drawn[4, 0].tolist() == [78, 78, 78]  # less than half way to black
    mask[:, 5:] = 2
    mask[:, 7:] = 1
    strong = overlay(grey(9, 9), mask, class_colours(INFO), 0.5)
    assert strong[4, 6].tolist() == [10, 125, 10]  # the last column of class 2


def test_overlay_of_ignored_and_unlabelled_is_light():
    mask = np.array([[255, 3]], np.uint8)
    assert (overlay(grey(1, 2), mask, class_colours(INFO)) > 150).all()


def test_overlay_takes_any_colours_and_integer_dtype():
    colours = np.full((256, 3), 255, np.uint8)
    drawn = overlay(grey(2, 2), np.ones((2, 2), np.int64), colours, 1.0)
    assert (drawn == 255).all()


def test_overlay_refuses_another_size():
    with pytest.raises(ValueError, match="must be equal"):
        overlay(grey(4, 4), np.zeros((4, 5), np.uint8), palette(256))


def test_point_lies_where_it_was_clicked():
    drawn = draw_annotation(grey(), Annotation(points=(Point("coral", (30, 10)),)), INFO)
    found = where(drawn, RED)
    assert {(30, 10), (28, 10), (30, 12)} <= found
    assert np.mean([*found], axis=0) == pytest.approx([30, 10], abs=0.5)
    assert (0, 0) not in where(drawn, (255, 255, 255))


def test_positions_follow_when_the_picture_shrinks():
    drawn = draw_annotation(
        grey(400, 600), Annotation(points=(Point("sand", (300, 100)),)), INFO, side=60
    )
    assert drawn.shape == (40, 60, 3)
    assert np.mean([*where(drawn, GREEN)], axis=0) == pytest.approx([29.55, 9.55], abs=1)


def test_box_is_half_open():
    # Short of the chip with the name, which covers the top left corner.
    drawn = draw_annotation(
        grey(80, 120), Annotation(boxes=(Box("sand", (70, 40, 110, 70)),)), INFO
    )
    box = where(drawn, GREEN)
    assert max(x for x, _ in box) == 108  # 109, the last pixel inside, has the white rim
    assert max(y for _, y in box) == 68
    assert drawn[69, 109].tolist() == [255, 255, 255]
    assert drawn[70, 109].tolist() == [100, 100, 100]


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0, 0, 60, 40), (59, 39, 60, 40), (5, 5, 5.5, 9)])
def test_boxes_of_any_size_are_drawn(box):
    drawn = draw_annotation(grey(), Annotation(boxes=(Box("sand", box),)), INFO)
    assert (drawn != 100).any()


def test_scribble_covers_its_line():
    scribble = Scribble("coral", ((10, 20), (50, 20)))
    found = where(draw_annotation(grey(), Annotation(scribbles=(scribble,)), INFO), RED)
    assert {(x, 20) for x in range(10, 51)} <= found
    assert max(y for _, y in found) - min(y for _, y in found) <= 5


def test_tags_are_chips_that_wrap():
    info = DatasetInfo("d", tuple(f"class {i}" for i in range(12)))
    one = draw_annotation(grey(120, 100), Annotation(tags=("class 1",)), info)
    all_ = draw_annotation(grey(120, 100), Annotation(tags=info.classes), info)
    assert 30 < (one != 100).any(2).sum() < 2000
    for colour in palette(12)[1:]:
        assert where(all_, colour)
    rows = np.flatnonzero((all_ != 100).any((1, 2)))
    assert rows.max() > 60


def test_mask_and_areas_to_ignore_are_drawn():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:20] = 1
    annotation = Annotation(
        mask=mask, ignore=(Area(xyxy=(40, 20, 50, 30)), Area(xy=((0, 39), (9, 39), (9, 30))))
    )
    drawn = draw_annotation(grey(), annotation, INFO)
    assert drawn[15, 19, 0] > drawn[15, 15, 0] > drawn[15, 25, 0]  # edge, inside, outside
    assert (drawn[25, 45] > 150).all()
    assert (drawn[38, 8] > 150).all()


def test_class_that_is_not_in_the_list():
    with pytest.raises(InputError, match="fish"):
        draw_annotation(grey(), Annotation(tags=("fish",)), INFO)


def test_the_photograph_itself_is_left_alone():
    image = grey()
    draw_annotation(image, Annotation(points=(Point("coral", (5, 5)),)), INFO)
    draw_boundaries(image, np.arange(2400).reshape(40, 60))
    overlay(image, np.ones((40, 60), np.uint8), palette(256))
    assert (image == 100).all()


def test_seeds_are_painted_and_the_rest_is_paled():
    seeds = np.array([[0, 1, 3, 255]])
    drawn = draw_seeds(grey(1, 4), seeds, INFO)[0]
    assert (drawn[0] < 50).all()
    assert drawn[1, 0] > 120
    assert (drawn[1, 1:] < 50).all()
    assert drawn[2].tolist() == [185, 185, 185]
    assert (drawn[3] < drawn[2]).all()


def test_boundaries_lie_left_of_and_above_a_change():
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    expected = [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert boundaries(labels).astype(int).tolist() == expected
    assert draw_boundaries(grey(3, 3), labels, 0.5)[0, :, 0].tolist() == [100, 178, 100]


def test_mosaic_takes_means_and_leaves_the_ignored_grey():
    image = np.array([[[0, 0, 0], [10, 20, 30], [50, 50, 50], [7, 7, 7]]], np.uint8)
    assert mosaic(image, np.array([[0, 0, 2, -1]]))[0].tolist() == [
        [5, 10, 15],
        [5, 10, 15],
        [50, 50, 50],
        [225, 225, 225],
    ]
    assert (mosaic(image, np.full((1, 4), -1)) == 225).all()


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [
        ((40, 60, 3), 30, (20, 30, 3)),
        ((40, 60), 30, (20, 30)),
        ((40, 60, 3), 60, (40, 60, 3)),
        ((40, 60, 3), None, (40, 60, 3)),
        ((1000, 1, 3), 10, (10, 1, 3)),
    ],
)
def test_shrink(shape, side, expected):
    assert shrink(np.zeros(shape, np.uint8), side).shape == expected


def test_shrunk_maps_keep_their_values():
    labels = np.random.default_rng(0).choice([0, 7, 255], (50, 70)).astype(np.uint8)
    assert {*np.unique(shrink(labels, 10)).tolist()} <= {0, 7, 255}


def test_one_vector_has_one_colour_in_all_pictures():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 8)).astype(np.float32)
    first, second = (rng.integers(5, size=(6, 9)), rng.integers(5, size=(4, 3)))
    maps = [vectors[index].transpose(2, 0, 1) for index in (first, second)]
    colours = pca_colours(maps)
    assert [c.shape for c in colours] == [(6, 9, 3), (4, 3, 3)]
    assert all(c.dtype == np.uint8 for c in colours)
    seen = {}
    for index, colour in zip((first, second), colours, strict=True):
        for i, c in zip(index.ravel(), colour.reshape(-1, 3), strict=True):
            assert (np.abs(seen.setdefault(i, c).astype(int) - c) <= 1).all()
    assert len({tuple(c) for c in seen.values()}) == 5
    assert np.concatenate([c.ravel() for c in colours]).max() == 255


def test_first_component_is_the_widest():
    x = np.zeros((4, 1, 100))
    x[2, 0] = np.linspace(-5, 5, 100)
    x[0, 0] = np.tile([-1, 1, 1, -1], 25)
    (colours,) = pca_colours([x])
    assert np.abs(np.diff(colours[0, :, 0].astype(int))).max() <= 4
    assert {*np.unique(colours[0, :, 1])} == {0, 255}


@pytest.mark.parametrize("dims", [1, 2, 3, 8])
def test_embeddings_of_few_dimensions_or_none_at_all_differing(dims):
    (colours,) = pca_colours([np.ones((dims, 2, 2))])
    assert (colours >= 127).all()
    assert (colours <= 128).all()
    assert pca_colours([]) == []


@pytest.mark.parametrize(
    ("colour", "ink"), [((0, 0, 0), 255), ((128, 0, 0), 255), ((255, 255, 0), 0), ((192,) * 3, 0)]
)
def test_ink_can_be_read(colour, ink):
    assert ink_on(colour) == (ink,) * 3

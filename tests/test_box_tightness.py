import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.annotation import Annotation, Box
from weakseg.box_tightness import COVERED, boxed_classes, tightened
from weakseg.dataset_info import DatasetInfo

INFO = DatasetInfo("reef", ("water", "coral", "sand"), background="water")


def test_boxes_become_windows_of_the_image():
    boxes = (Box("coral", (1, 2, 4, 6)), Box("sand", (0.5, 0, 8, 1)))
    assert boxed_classes(Annotation(boxes=boxes), INFO, (6, 8)) == [
        (1, slice(2, 6), slice(1, 4)),
        (2, slice(0, 1), slice(1, 8)),
    ]


def a_spot(side=10, likely=0.6, elsewhere=0.2):
    """Scores of background and one class that is the likelier one in the middle only."""
    coral = torch.full((side, side), elsewhere)
    coral[4:6, 4:6] = likely
    return torch.stack([1 - coral, coral])


def covered(scores, row, rows, columns):
    """Share of a window's rows and of its columns in which a row of `scores` is the largest."""
    won = scores.argmax(0)[rows, columns] == row
    return min(float(won.any(1).float().mean()), float(won.any(0).float().mean()))


@pytest.mark.parametrize("size", [(10, 10), (100, 40)])
def test_a_class_is_raised_until_it_reaches_the_sides_of_its_box(size):
    scores, box = a_spot(), (1, slice(0, size[0]), slice(0, size[1]))
    raised = tightened(scores, [0, 1], [box], size)
    assert covered(scores, 1, slice(0, 10), slice(0, 10)) == pytest.approx(0.2)
    assert covered(raised, 1, slice(0, 10), slice(0, 10)) >= COVERED
    assert torch.equal(raised[0], scores[0])


def test_it_is_raised_in_its_box_alone():
    scores = a_spot()
    raised = tightened(scores, [0, 1], [(1, slice(2, 8), slice(2, 8))], (10, 10))
    changed = (raised != scores)[1]
    assert changed[2:8, 2:8].all()
    assert changed.sum() == 36


def test_no_more_than_tenfold():
    raised = tightened(a_spot(elsewhere=0.01), [0, 1], [(1, slice(0, 10), slice(0, 10))], (10, 10))
    assert raised[1].max() == pytest.approx(6)


@pytest.mark.parametrize(
    ("classes", "boxes"),
    [
        ([0, 1], []),
        ([0, 1], [(1, slice(4, 6), slice(4, 6))]),  # tight already
        ([1, 0], [(0, slice(4, 6), slice(4, 6))]),
    ],
)
def test_scores_that_need_no_change_are_given_back(classes, boxes):
    scores = a_spot()
    assert tightened(scores, classes, boxes, (10, 10)) is scores


def test_a_class_alone_has_nothing_to_win_against():
    scores = torch.full((1, 3, 3), 0.1)
    assert tightened(scores, [4], [(4, slice(0, 9), slice(0, 9))], (9, 9)) is scores


@st.composite
def spans(draw, count):
    start = draw(st.integers(0, count - 1))
    return slice(start, draw(st.integers(start + 1, count)))


@settings(deadline=None)
@given(st.data())
def test_a_box_of_any_scores_is_covered_if_tenfold_is_enough(data):
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    scores = torch.rand(3, data.draw(st.integers(1, 9)), 7, generator=random) + 0.12
    rows, columns = data.draw(spans(height)), data.draw(spans(width))
    raised = tightened(scores, [0, 1, 2], [(2, rows, columns)], (height, width))
    # The window on the grid: every cell that holds a pixel of the box.
    h, w = scores.shape[1:]
    window = [
        slice(s.start * n // count, -(-s.stop * n // count))
        for s, n, count in ((rows, h, height), (columns, w, width))
    ]
    assert covered(raised, 2, *window) >= COVERED - 1e-6
    assert (raised >= scores).all()

"""The measures of benchmarks/regions, on cases small enough to count by hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from weakseg.regions.ultrametric import build_hierarchy

FOLDER = Path(__file__).parents[1] / "benchmarks" / "regions"


@pytest.fixture(scope="module")
def measures():
    spec = importlib.util.spec_from_file_location("measures", FOLDER / "measures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of(rows):
    return np.array([[int(label) for label in row] for row in rows.split()])


SAME = of("0011 0011")
HALF = of("0000 1111")
ONE = of("0000 0000")
PIXELS = of("0123 4567")


@pytest.mark.parametrize(
    ("regions", "covering", "rand", "variation", "asa", "error"),
    [
        (SAME, 1, 1, 0, 1, 0),
        (HALF, 1 / 3, 12 / 28, 2, 1 / 2, 1),
        (ONE, 1 / 2, 12 / 28, 1, 1 / 2, 1),
        (PIXELS, 1 / 4, 16 / 28, 2, 1, 0),
    ],
    ids=["same", "across", "one", "pixels"],
)
def test_by_hand(measures, regions, covering, rand, variation, asa, error):
    table = measures.contingency(regions, SAME)
    covered = (measures.best_overlaps(table) * table.sum(0)).sum() / table.sum()
    assert covered == pytest.approx(covering)
    assert measures.rand_index(table) == pytest.approx(rand)
    assert measures.variation_of_information(table) == pytest.approx(variation)
    assert measures.achievable_accuracy(table) == pytest.approx(asa)
    assert measures.undersegmentation_error(table) == pytest.approx(error)


def test_unknown_pixels_are_left_out(measures):
    truth = np.where(of("0100 0000") == 1, -1, SAME)
    assert measures.contingency(ONE, truth).tolist() == [[3, 4]]


def test_merged_rows_are_the_coarser_table(measures):
    groups = np.array([1, 0, 0, 1, 1, 1, 0, 0])
    merged = measures.merge_rows(measures.contingency(PIXELS, SAME), groups)
    assert np.array_equal(merged, measures.contingency(groups[PIXELS], SAME))


@pytest.mark.parametrize(("shift", "recall"), [(0, 1), (2, 1), (3, 0)])
def test_boundary_recall_reaches_two_pixels(measures, shift, recall):
    truth = np.zeros((6, 20), int)
    truth[:, 10:] = 1
    regions = np.zeros((6, 20), int)
    regions[:, 10 + shift :] = 1
    assert measures.boundary_recall(regions, truth) == recall
    hidden = truth.copy()
    hidden[:, 8:12] = -1  # a band along the outline that VOC leaves out; its middle is meant
    assert measures.boundary_recall(regions, hidden) == recall


def test_one_threshold_for_all_or_one_each(measures):
    """What is a thing's outline in one image is a faint line in another: no threshold suits both.

    In both images the right half is a thing; an outline that nobody drew divides the left half.
    """
    truth = np.zeros((1, 20, 40), int)
    truth[:, :, 20:] = 1
    measure = measures.Segmentation500(np.linspace(0.01, 1, 100))
    for thing, line in ((0.3, 0.1), (0.9, 0.5)):
        contours = np.zeros((20, 40), np.float32)
        contours[:, 19:21] = thing
        contours[9:11, :19] = line
        grey = np.zeros((20, 40, 3), np.float32)
        tree = build_hierarchy(contours, ridges=contours, lab=grey, min_area=4)
        measure.add(tree, truth)
    found = measure.summary()
    assert found["images"] == 2
    assert found["covering_ois"] == found["covering_best"] == pytest.approx(1)
    assert found["covering_ods"] == pytest.approx((1 + 0.75) / 2, abs=0.01)
    assert found["pri_ods"] < found["pri_ois"] == pytest.approx(1)
    assert found["voi_ods"] > found["voi_ois"] == pytest.approx(0)


def test_agreement_of_people(measures):
    found = measures.agreement([np.stack([SAME, SAME]), np.stack([SAME, ONE])])
    # The halves cover the whole by 1/2, and the whole covers either half by 1/2.
    assert found["covering"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["pri"] == pytest.approx((1 + 12 / 28) / 2)
    assert found["voi"] == pytest.approx((0 + 1) / 2)
    assert found["images"] == 2

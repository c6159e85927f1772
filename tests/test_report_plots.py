"""Loss curves: scales, labels and what is in the picture."""

import itertools
import re
import xml.etree.ElementTree as ET

import pytest

from weakseg.report.plots import (
    BOTTOM,
    HEIGHT,
    LEFT,
    POINTS,
    RIGHT,
    TOP,
    WIDTH,
    line_chart,
    loss_charts,
    spread,
    stage_title,
    thinned,
    ticks,
)


def record(stage, step, **losses):
    return {"stage": stage, "step": step, "losses": losses}


def lines_of(svg):
    """Points of each loss line of a chart."""
    paths = re.findall(r'<path class="line s(\d)" d="M([^"h]+)', svg)
    return {int(n): [tuple(map(float, p.split())) for p in d.split("L")] for n, d in paths}


def test_one_chart_a_stage_and_one_line_a_loss():
    records = [
        record("embedding", 20, annotation=2.0, affinity=1.0),
        record("embedding", 40, annotation=1.0, affinity=1.5),
        record("classifier-0", 20, cross_entropy=1.0),
        record("features", 3),
    ]
    charts = loss_charts(records)
    assert [c.title for c in charts] == ["Embedding", "Classifier on seeds"]
    assert set(lines_of(charts[0].svg)) == {2, 4}
    assert set(lines_of(charts[1].svg)) == {0}
    assert loss_charts([]) == []


def test_a_line_runs_from_zero_steps_and_zero_loss():
    (line,) = lines_of(line_chart("t", {"annotation": [(0, 0.0), (50, 1.0), (100, 2.0)]})).values()
    assert line == [
        (LEFT, HEIGHT - BOTTOM),
        ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2),
        (WIDTH - RIGHT, TOP),
    ]


def test_losses_of_many_magnitudes_are_drawn_as_logarithms():
    svg = line_chart("t", {"annotation": [(0, 1.0), (1, 0.1), (2, 0.01), (3, 0.001)]})
    (line,) = lines_of(svg).values()
    heights = [y for _, y in line]
    steps = [b - a for a, b in itertools.pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.11)
    assert ">0.01<" in svg


@pytest.mark.parametrize(
    "lines",
    [
        {"a": [(1, 1.0)]},
        {"a": [(0, 0.0)]},
        {"a": [(5, 0.0), (6, 0.0)]},
        {"a": [(1, -3.0), (2, 5.0)]},
        {"a": [(1, 1e-9), (2, 1e9)], "b": [(2, 3.0)]},
        {"<&>": [(1, 1.0), (2, 2.0)]},
    ],
)
def test_every_chart_is_well_formed_and_inside_its_frame(lines):
    svg = line_chart("<title> & more", lines)
    ET.fromstring(svg)
    for line in lines_of(svg).values():
        for x, y in line:
            assert LEFT <= x <= WIDTH - RIGHT
            assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


def test_losses_that_are_not_finite_are_left_out():
    charts = loss_charts(
        [record("embedding", 1, a=float("nan")), record("embedding", 2, a=float("inf"), b=1.0)]
    )
    assert "nan" not in charts[0].svg
    assert "inf" not in charts[0].svg
    assert loss_charts([record("embedding", 1, a=float("nan"))]) == []


def test_long_lines_are_thinned_to_means_with_their_end_kept():
    line = [(float(i), float(i % 2)) for i in range(10_001)]
    thin = thinned(line)
    assert len(thin) <= POINTS + 1
    assert thin[-1] == line[-1]
    assert all(0.3 < y < 0.7 for _, y in thin[:-1])
    assert thinned(line[:POINTS]) == line[:POINTS]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 600, [0, 200, 400, 600]),
        (0, 0.03, [0, 0.01, 0.02, 0.03]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (2, 2, [2]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([10, 50], [10, 50]),
        ([50, 50], [50, 60]),
        ([100, 99], [100, 90]),
        ([0, 0, 0], [0, 10, 20]),
        ([100, 100, 100], [80, 90, 100]),
    ],
)
def test_names_do_not_overlap(places, expected):
    assert spread(places, 10, 0, 100) == expected


@pytest.mark.parametrize(
    ("stage", "title"),
    [
        ("classifier-0", "Classifier on seeds"),
        ("classifier-2", "Classifier, round 2"),
        ("cross-entropy-classifier", "Baseline: plain cross-entropy"),
        ("anything_else", "Anything else"),
    ],
)
def test_stage_titles(stage, title):
    assert stage_title(stage) == title

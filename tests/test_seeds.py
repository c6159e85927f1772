import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.annotation import Annotation, Area, Box, Point, Scribble
from weakseg.dataset_info import DatasetInfo
from weakseg.errors import InputError
from weakseg.images import write_mask
from weakseg.seeds import ClassMaps, draw_boxes_filled, seed_map, seeds_at

INFO = DatasetInfo("x", ("sea", "coral", "sand"), "sea", boxes_exhaustive=True)
PLAIN = DatasetInfo("x", ("kelp", "coral", "sand"), tags_exhaustive=False)
SEA, CORAL, SAND, FREE, IGNORED = 0, 1, 2, 3, 255


def show(seeds):
    """A seed map as text: digits for classes, `.` unlabelled, `#` ignored."""
    letters = {FREE: ".", IGNORED: "#"}
    return ["".join(letters.get(v, str(v)) for v in row) for row in seeds.tolist()]


def point(label, x, y):
    return Annotation(points=(Point(label, (x, y)),))


def test_nothing_is_unlabelled():
    seeds = seed_map(Annotation(), INFO, (2, 3))
    assert seeds.dtype == np.int32
    assert show(seeds) == ["...", "..."]


def test_a_point_is_a_disc():
    assert show(seed_map(point("coral", 3, 2), INFO, (5, 7), point_radius=2)) == [
        "...1...",
        "..111..",
        ".11111.",
        "..111..",
        "...1...",
    ]
    y, x = np.mgrid[:40, :50]
    expected = (x - 20) ** 2 + (y - 25) ** 2 <= 36
    assert np.array_equal(seed_map(point("coral", 20, 25), INFO, (40, 50)) == CORAL, expected)


def test_a_point_at_the_edge_and_between_pixels():
    assert show(seed_map(point("coral", 0, 0), INFO, (3, 3), point_radius=1)) == [
        "11.",
        "1..",
        "...",
    ]
    assert show(seed_map(point("coral", 1.5, 1), INFO, (3, 4), point_radius=0.5)) == [
        "....",
        ".11.",
        "....",
    ]
    # however small, it labels a pixel
    assert show(seed_map(point("coral", 2.9, 1.5), INFO, (2, 3), point_radius=0)) == ["...", "..1"]


def test_strokes_are_as_wide_as_they_say():
    def stroke(*xy, width):
        return show(seed_map(Annotation(scribbles=(Scribble("sand", xy, width),)), INFO, (5, 8)))

    assert stroke((1, 2), (6, 2), width=1) == [
        "........",
        "........",
        ".222222.",
        "........",
        "........",
    ]
    assert stroke((2, 2), (5, 2), width=3) == [
        "........",
        ".222222.",
        ".222222.",
        ".222222.",
        "........",
    ]
    assert stroke((1, 1), (3, 3), width=1) == [
        "........",
        ".2......",
        "..2.....",
        "...2....",
        "........",
    ]
    # a joint is round, not mitred
    assert stroke((1, 3), (4, 3), (4, 0), width=1) == [
        "....2...",
        "....2...",
        "....2...",
        ".2222...",
        "........",
    ]


def distance(x, y, xy):
    """Distance of a pixel to a polyline, plainly."""
    best = np.inf
    for (ax, ay), (bx, by) in pairwise(xy):
        dx, dy = bx - ax, by - ay
        length = dx * dx + dy * dy
        t = 0 if length == 0 else min(1, max(0, ((x - ax) * dx + (y - ay) * dy) / length))
        best = min(best, np.hypot(x - ax - t * dx, y - ay - t * dy))
    return best


VERTICES = st.lists(
    st.tuples(st.floats(0, 29.9) | st.integers(0, 29), st.floats(0, 19.9)), min_size=2, max_size=5
)


@settings(deadline=None, max_examples=40)
@given(VERTICES, st.sampled_from([2, 3, 4.5, 8, 30]))
def test_strokes_hold_the_pixels_within_half_their_width(xy, width):
    annotation = Annotation(scribbles=(Scribble("coral", tuple(xy), width),))
    seeds = seed_map(annotation, INFO, (20, 30))
    far = np.array([[distance(x, y, xy) for x in range(30)] for y in range(20)])
    certain = np.abs(far - width / 2) > 1e-6
    assert np.array_equal((seeds == CORAL)[certain], (far < width / 2)[certain])


def test_a_long_stroke_is_drawn_in_bounded_memory():
    xy = ((0, 0), (3999, 2999))
    seeds = seed_map(Annotation(scribbles=(Scribble("coral", xy, 300),)), INFO, (3000, 4000))
    y, x = np.mgrid[:3000:100, :4000:100]
    across = np.abs(x * 2999 - y * 3999) / np.hypot(2999, 3999)
    inside = (x > 200) & (y > 200) & (x < 3800) & (y < 2800)
    assert np.array_equal((seeds[::100, ::100] == CORAL)[inside], (across <= 150)[inside])


def test_where_marks_overlap_the_nearer_wins():
    both = Annotation(points=(Point("coral", (2, 0)), Point("sand", (7, 0))))
    assert show(seed_map(both, INFO, (1, 10))) == ["1111122222"]
    turned = Annotation(points=both.points[::-1])
    assert show(seed_map(turned, INFO, (1, 10))) == ["1111122222"]
    line = Annotation(
        points=(Point("coral", (4, 1)),), scribbles=(Scribble("sand", ((0, 0), (9, 0)), 1),)
    )
    assert show(seed_map(line, INFO, (2, 10), point_radius=2)) == ["2222222222", "..11111..."]


# boxes

CAM = ClassMaps((1, 2), np.array([[[0.0, 0.2, 0.4, 0.8]], [[1.0, 0.5, 0.0, 0.0]]]))


@pytest.mark.parametrize(
    ("boxes", "info", "options", "expected"),
    [
        # the CAM is scaled within the box: 0, .25, .5, 1
        ([Box("coral", (0, 0, 4, 1))], INFO, {"cam": CAM}, "..11"),
        ([Box("coral", (1, 0, 3, 1))], INFO, {"cam": CAM}, "0.10"),
        ([Box("coral", (0, 0, 4, 1))], INFO, {"cam": CAM, "box_threshold": 0.2}, ".111"),
        # background only where the data set says so
        ([Box("coral", (1, 0, 3, 1))], PLAIN, {"cam": CAM}, "..1."),
        # one pixel: flat, so it is the class
        ([Box("coral", (1, 0, 2, 1))], INFO, {"cam": CAM}, "0100"),
        # no CAM for the class, or none at all
        ([Box("sea", (1, 0, 3, 1))], INFO, {"cam": CAM}, "0..0"),
        ([Box("coral", (1, 0, 3, 1))], INFO, {}, "0..0"),
        ([Box("coral", (1, 0, 3, 1))], INFO, {"fill_boxes": True}, "0110"),
        ([Box("coral", (1, 0, 3, 1))], INFO, {"fill_boxes": True, "cam": CAM}, "0110"),
        # the smaller box wins, in any order
        (
            [Box("sand", (1, 0, 2, 1)), Box("coral", (0, 0, 3, 1))],
            INFO,
            {"fill_boxes": True},
            "1210",
        ),
        (
            [Box("coral", (0, 0, 3, 1)), Box("sand", (1, 0, 2, 1))],
            INFO,
            {"fill_boxes": True},
            "1210",
        ),
        # fractions: the pixels whose centres lie inside, one at least
        ([Box("coral", (0.5, 0, 2.5, 1))], INFO, {"fill_boxes": True}, "0110"),
        ([Box("coral", (1.2, 0, 1.4, 1))], INFO, {"fill_boxes": True}, "0010"),
        ([Box("coral", (3.2, 0, 4, 1))], INFO, {"fill_boxes": True}, "0001"),
    ],
)
def test_boxes(boxes, info, options, expected):
    annotation = Annotation(boxes=tuple(boxes))
    assert show(seed_map(annotation, info, (1, 4), **options)) == [expected]
    if options.get("fill_boxes"):
        assert show(draw_boxes_filled(boxes, info, (1, 4))) == [expected]


def test_a_box_keeps_its_pixels_from_tags():
    # inside, what the box leaves open stays open; outside, it leaves the tags' seeds alone
    annotation = Annotation(tags=("coral", "sand"), boxes=(Box("coral", (0, 0, 2, 1)),))
    info = DatasetInfo("x", INFO.classes, "sea")
    assert show(seed_map(annotation, info, (1, 4), cam=CAM, kinds=["tags"])) == ["2211"]
    assert show(seed_map(annotation, info, (1, 4), cam=CAM)) == [".111"]


# tags


@pytest.mark.parametrize(
    ("tags", "info", "options", "expected"),
    [
        # coral over its maximum: 0, .25, .5, 1
        (("coral",), INFO, {}, "0.11"),
        (("coral",), INFO, {"foreground": 0.6}, "0..1"),
        (("coral",), INFO, {"background": 0.25}, "0011"),
        (("coral", "sea"), INFO, {}, "0.11"),
        # best class wins; 1, .5, 0, 0 for sand
        (("coral", "sand"), INFO, {}, "2211"),
        # tags that may leave classes out say nothing of background
        (("coral",), PLAIN, {}, "..11"),
        # nothing else can be there
        (("sea",), INFO, {}, "0000"),
        (("sea",), INFO, {"cam": None}, "0000"),
        (("coral",), DatasetInfo("x", ("kelp", "coral", "sand")), {"cam": None}, "1111"),
        (("sand",), PLAIN, {"cam": None}, "...."),
        (("coral",), INFO, {"cam": None}, "...."),
        # 0/0: a class that the CAM does not find anywhere gives no seeds
        (("coral",), INFO, {"cam": ClassMaps((1,), np.zeros((1, 1, 4)))}, "0000"),
        ((), INFO, {}, "...."),
    ],
)
def test_tags(tags, info, options, expected):
    seeds = seed_map(Annotation(tags=tags), info, (1, 4), **({"cam": CAM} | options))
    assert show(seeds) == [expected]


def test_excluded_classes_never_appear():
    rng = np.random.default_rng(0)
    cam = ClassMaps((0, 1, 2), rng.random((3, 6, 8)))
    seeds = seed_map(Annotation(tags=("coral",)), INFO, (12, 16), cam=cam)
    assert set(np.unique(seeds)) == {SEA, CORAL, FREE}


def test_maps_are_resized_to_the_image():
    cam = ClassMaps((1,), np.array([[[0.0, 1.0]]]))
    seeds = seed_map(Annotation(tags=("coral",)), INFO, (2, 8), cam=cam)
    assert show(seeds) == ["000.1111"] * 2


@pytest.mark.parametrize(
    ("classes", "scores"),
    [((1,), np.zeros((2, 3, 3))), ((1,), np.zeros((3, 3))), ((1,), np.full((1, 2, 2), np.nan))],
)
def test_class_maps_are_checked(classes, scores):
    with pytest.raises(InputError, match="class maps"):
        ClassMaps(classes, scores)


# masks, areas to ignore, and all together


def test_masks_from_arrays_and_files(tmp_path):
    mask = np.array([[0, 1, 2, 3, 255]])
    write_mask(tmp_path / "m.png", mask)
    for source in (mask, mask.astype(np.uint8), tmp_path / "m.png"):
        assert show(seed_map(Annotation(mask=source), INFO, (1, 5))) == ["012.#"]
    write_mask(tmp_path / "m.png", np.array([[0, 4]]))
    with pytest.raises(InputError, match=r"m\.png: mask value is not a class: found 4"):
        seed_map(Annotation(mask=tmp_path / "m.png"), INFO, (1, 2))
    with pytest.raises(InputError, match=r"m\.png: mask of another size"):
        seed_map(Annotation(mask=tmp_path / "m.png"), INFO, (1, 3))


def test_areas_to_ignore():
    areas = (Area((1, 0, 3, 2)), Area(xy=((4, 0), (7, 0), (7, 3))))
    seeds = seed_map(Annotation(ignore=areas), INFO, (4, 8))
    assert show(seeds) == [".##.####", ".##..###", "......##", ".......#"]
    huge = (Area((-1e6, -1e6, 1e6, 1e6)), Area(xy=((-1e6, -1e6), (1e6, -1e6), (0, 1e6))))
    for area in huge:
        assert (seed_map(Annotation(ignore=(area,)), INFO, (4, 8)) == IGNORED).all()


def test_the_more_certain_kind_wins():
    everything = {
        "mask": np.array([[3, 3, 3, 3, 2, 3]]),
        "points": (Point("sand", (2, 0)), Point("sea", (3, 0)), Point("sea", (4, 0))),
        "boxes": (Box("coral", (1, 0, 4, 1)),),
        "tags": ("sand",),
        "ignore": (Area((5, 0, 6, 1)),),
    }
    cam = ClassMaps((1, 2), np.ones((2, 1, 6)))
    info = DatasetInfo("x", INFO.classes, "sea")
    options = {"cam": cam, "point_radius": 0}

    def of(*kinds):
        chosen = Annotation(**{k: everything[k] for k in (*kinds, "ignore")})
        [text] = show(seed_map(chosen, info, (1, 6), **options))
        restricted = seed_map(Annotation(**everything), info, (1, 6), kinds=names(kinds), **options)
        assert show(restricted) == [text]
        return text

    def names(kinds):
        return ["masks" if kind == "mask" else kind for kind in kinds]

    assert of("tags") == "22222#"
    assert of("tags", "boxes") == "21112#"
    assert of("tags", "boxes", "points") == "21200#"
    assert of("tags", "boxes", "points", "mask") == "21202#"
    assert of("mask") == "....2#"
    assert of() == ".....#"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (point("kelp", 0, 0), "class 'kelp' is not in the list"),
        (point("coral", 5, 0), "point outside the image: found"),
        (Annotation(boxes=(Box("coral", (0, 0, 6, 1)),)), "box outside the image"),
        (Annotation(mask=np.zeros((2, 2), int)), "mask of another size"),
        (Annotation(mask=np.full((4, 5), -1)), "mask value is not a class: found -1"),
    ],
)
def test_labels_that_do_not_fit(annotation, message):
    with pytest.raises(InputError, match=message):
        seed_map(annotation, INFO, (4, 5))


# coarser grids


def test_sparse_labels_survive():
    seeds = np.full((4, 8), FREE, np.int32)
    seeds[0, 0] = CORAL  # one pixel of eight is enough
    seeds[:2, 2:4] = IGNORED  # all of a cell
    seeds[2:, :2] = IGNORED
    seeds[3, 1] = FREE  # all but one
    seeds[0, 4:6] = SAND
    seeds[1, 4] = SEA
    assert show(seeds_at(seeds, (2, 4), classes=3)) == ["1#2.", "...."]


def test_ties_go_to_the_rarer_class():
    seeds = np.array([[SEA, CORAL, SEA, SEA]], np.int32)
    assert show(seeds_at(seeds, (1, 2), classes=3)) == ["10"]


def test_finer_grids_repeat_pixels():
    seeds = np.array([[SEA, CORAL], [FREE, IGNORED]], np.int32)
    assert show(seeds_at(seeds, (2, 4), classes=3)) == ["0011", "..##"]
    assert show(seeds_at(seeds, (4, 2), classes=3)) == ["01", "01", ".#", ".#"]
    assert np.array_equal(seeds_at(seeds, (2, 2), classes=3), seeds)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.randoms())
def test_each_cell_is_what_its_pixels_say(height, width, h, w, random):
    h, w = min(h, height), min(w, width)
    values = [SEA, CORAL, SAND, FREE, FREE, IGNORED]
    seeds = np.array([[random.choice(values) for _ in range(width)] for _ in range(height)])
    grid = seeds_at(seeds.astype(np.int32), (h, w), classes=3)
    rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
    for i in range(h):
        for j in range(w):
            cell = seeds[np.ix_(rows == i, columns == j)]
            counts = [int((cell == c).sum()) for c in range(3)]
            if any(counts):
                assert counts[grid[i, j]] == max(counts)
            else:
                assert grid[i, j] == (IGNORED if (cell == IGNORED).all() else FREE)


def test_a_photograph_takes_milliseconds():
    rng = np.random.default_rng(0)
    names = tuple(f"c{i}" for i in range(250))
    info = DatasetInfo("x", names)
    strokes = tuple(
        Scribble(
            name,
            tuple(map(tuple, (rng.random((12, 2)) * (120, 120) + rng.random(2) * 250).tolist())),
        )
        for name in names[:8]
    )
    points = tuple(Point(name, tuple((rng.random(2) * (499, 374)).tolist())) for name in names[:20])
    annotation = Annotation(points=points, scribbles=strokes)

    def best(call):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    seeds = seed_map(annotation, info, (375, 500))
    assert best(lambda: seed_map(annotation, info, (375, 500))) < 0.06
    assert best(lambda: seeds_at(seeds, (94, 125), classes=250)) < 0.03

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakseg.annotation import KINDS, Annotation, Area, Box, Point, Scribble, check_kinds
from weakseg.errors import InputError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Box("a", (10, 5, 3, 9)), "box with x1 <= x0: found [10, 5, 3, 9]"),
        (lambda: Box("a", (3, 5, 3, 9)), "box with x1 <= x0"),
        (lambda: Box("a", (3, 9, 4, 9)), "box with y1 <= y0"),
        (lambda: Box("a", (3, 9, 4)), "box without corners"),
        (lambda: Box("a", None), "box without corners"),
        (lambda: Box("a", (NAN, 0, 1, 1)), "found nan; expected a finite number"),
        (lambda: Box("a", (0, 0, INF, 1)), "found inf"),
        (lambda: Box("a", (0, 0, 10**400, 1)), "expected a finite number"),
        (lambda: Box("a", (0, 0, True, 1)), "found True"),
        (lambda: Box("a", ("0", 0, 1, 1)), "found 0"),
        (lambda: Box(3, (0, 0, 1, 1)), "box whose class is not a name: found 3"),
        (lambda: Box("", (0, 0, 1, 1)), "box whose class is not a name"),
        (lambda: Point("a", (1,)), "point without a position"),
        (lambda: Point("a", "12"), "point without a position"),
        (lambda: Point("a", (1, NAN)), "found nan"),
        (lambda: Scribble("a", ((1, 2),)), "scribble of 1 position: found"),
        (lambda: Scribble("a", ()), "scribble of 0 positions"),
        (lambda: Scribble("a", ((1, 2), (3,))), "scribble without a position: found"),
        (lambda: Scribble("a", ((1, 2), (3, 4)), 0), "scribble without width: found 0"),
        (lambda: Scribble("a", ((1, 2), (3, 4)), NAN), "found nan"),
        (lambda: Area(), "expected either xyxy (a box) or xy (a polygon)"),
        (lambda: Area((0, 0, 1, 1), ((0, 0), (1, 1), (1, 0))), "expected either"),
        (lambda: Area(xy=((0, 0), (1, 1))), "area to ignore of 2 positions"),
        (lambda: Annotation(tags="cat"), "tags: found cat; expected a list"),
        (lambda: Annotation(tags=(1,)), "tag whose class is not a name"),
        (lambda: Annotation(boxes=((0, 0, 1, 1),)), "expected Box objects"),
        (lambda: Annotation(mask=np.zeros((2, 2))), "found shape (2, 2), dtype float64"),
        (lambda: Annotation(mask=np.zeros((2, 2, 3), np.uint8)), "expected (H, W) of integers"),
        (lambda: Annotation().restrict(["point"]), "unknown kind of label: found point"),
    ],
)
def test_what_is_wrong_without_the_image(build, message):
    with pytest.raises(InputError) as caught:
        build()
    assert message in str(caught.value)


def test_numpy_values_become_plain_ones():
    box = Box("a", np.array([0, 1, 2, 3], np.int16))
    assert box.xyxy == (0, 1, 2, 3)
    assert all(type(v) is int for v in box.xyxy)
    scribble = Scribble("a", np.array([[0.5, 1], [2, 3]], np.float32))
    assert scribble.xy == ((0.5, 1.0), (2.0, 3.0))
    assert all(type(v) is float for xy in scribble.xy for v in xy)


@pytest.mark.parametrize(
    ("annotation", "messages"),
    [
        (Annotation(points=(Point("a", (0, 0)), Point("a", (9, 4)))), []),
        (Annotation(points=(Point("a", (9.9, 4.9)),)), []),
        (
            Annotation(points=(Point("a", (10, 0)),)),
            ["point outside the image: found [10, 0]; expected 0 <= x < 10 and 0 <= y < 5"],
        ),
        (Annotation(points=(Point("a", (-0.1, 0)),)), ["point outside the image: found [-0.1, 0]"]),
        (Annotation(points=(Point("a", (0, 5)),)), ["point outside"]),
        (
            Annotation(scribbles=(Scribble("a", ((1, 1), (10, 1), (11, 1))),)),
            ["scribble outside the image: found [10, 1]"],
        ),
        (Annotation(boxes=(Box("a", (0, 0, 10, 5)),)), []),
        (Annotation(boxes=(Box("a", (0, 0, 11, 5)),)), ["box outside the image"]),
        (Annotation(boxes=(Box("a", (0, -1, 10, 5)),)), ["box outside the image"]),
        (
            Annotation(tags=("x",), points=(Point("y", (0, 9)),)),
            [
                "class 'x' is not in the list of classes: found x; expected one of a, b",
                "class 'y' is not in the list",
                "point outside the image",
            ],
        ),
        (Annotation(mask=np.zeros((5, 10), int)), []),
        (
            Annotation(mask=np.zeros((10, 5), int)),
            ["mask of another size: found 5 x 10; expected 10 x 5"],
        ),
    ],
)
def test_what_is_wrong_with_the_image(annotation, messages):
    problems = annotation.validate(10, 5, ("a", "b"))
    assert len(problems) == len(messages)
    for problem, message in zip(problems, messages, strict=True):
        assert str(problem).startswith(message)


def test_without_a_size_only_classes_are_checked():
    annotation = Annotation(points=(Point("z", (1e6, 0)),))
    assert [p.found for p in annotation.validate(None, None, ("a",))] == ["z"]


FULL = Annotation(
    tags=("a", "b"),
    boxes=(Box("a", (0, 0, 2, 2)),),
    points=(Point("c", (1, 1)),),
    scribbles=(Scribble("d", ((0, 0), (1, 2)), 5),),
    mask=Path("m.png"),
    ignore=(Area(xyxy=(0, 0, 1, 1)), Area(xy=((0, 0), (1, 0), (0, 1.5)))),
)


def test_kinds_labels_and_restriction():
    assert FULL.kinds == set(KINDS)
    assert FULL.labels == {"a", "b", "c", "d"}
    assert Annotation().kinds == set()
    for kind in KINDS:
        only = FULL.restrict([kind])
        assert only.kinds == {kind}
        assert only.ignore == FULL.ignore
    assert FULL.restrict(KINDS) == FULL
    assert check_kinds(["tags", "points", "tags"]) == ("points", "tags")
    assert check_kinds("points") == ("points",)


def test_equality_sees_every_member():
    assert Annotation(tags=("a", "a")) == Annotation(tags=["a"])
    different = [
        Annotation(),
        Annotation(tags=("a",)),
        *(FULL.restrict([kind]) for kind in KINDS),
        Annotation(mask=np.zeros((2, 2), int)),
        Annotation(mask=np.ones((2, 2), int)),
    ]
    for i, one in enumerate(different):
        assert [one == other for other in different] == [i == j for j in range(len(different))]


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        ({"boxes": [{"class": "a", "xyxy": [1, 1, 0, 2]}]}, ["box with x1 <= x0"]),
        ({"boxes": [{"xyxy": [0, 0, 1, 1]}]}, ["box without 'class'"]),
        (
            {"boxes": [{"class": "a", "xyxy": [0, 0, 1, 1], "score": 1}]},
            ["an unknown key: found s"],
        ),
        ({"boxes": [[0, 0, 1, 1]]}, ["box is not an object: found [0, 0, 1, 1]"]),
        ({"boxes": {"class": "a"}}, ["boxes is not a list"]),
        ({"points": "x"}, ["points is not a list: found x"]),
        ({"points": [{"class": "a", "xy": None}]}, ["point without a position"]),
        ({"points": [{"class": None, "xy": [0, 0]}]}, ["point whose class is not a name"]),
        ({"scribbles": [{"class": "a", "xy": [[0, 0]]}]}, ["scribble of 1 position"]),
        ({"tags": "cat"}, ["tags is not a list"]),
        ({"tags": [None, "a", 3]}, ["tag whose", "tag whose"]),
        ({"ignore": [{}]}, ["area to ignore: expected either"]),
        (
            {"tags": [1], "boxes": [{}], "points": [{"class": "a", "xy": [0, 0]}, 3]},
            ["tag whose", "box without", "point is not"],
        ),
        ({"tags": None, "boxes": None}, []),
    ],
)
def test_parse_lists_every_problem(data, messages):
    annotation, problems = Annotation.parse(data)
    assert len(problems) == len(messages)
    for problem, message in zip(problems, messages, strict=True):
        assert message in str(problem)
    assert len(annotation.points) == sum(
        p == {"class": "a", "xy": [0, 0]} for p in data.get("points", ())
    )
    if messages:
        with pytest.raises(InputError, match=messages[0].split(":")[0]):
            Annotation.from_dict(data)


def test_from_dict_refuses_unknown_keys():
    with pytest.raises(InputError, match="unknown key: found scribble; expected tags, boxes"):
        Annotation.from_dict({"scribble": []})


NAMES = st.text(min_size=1, max_size=5)
NUMBERS = st.integers(-1000, 1000) | st.floats(-1000, 1000)
POSITIONS = st.tuples(NUMBERS, NUMBERS)


@st.composite
def corners(draw):
    x0, y0 = draw(POSITIONS)
    sides = st.integers(1, 50) | st.floats(0.01, 50)
    return (x0, y0, x0 + draw(sides), y0 + draw(sides))


ANNOTATIONS = st.builds(
    Annotation,
    tags=st.lists(NAMES, max_size=3).map(tuple),
    boxes=st.lists(st.builds(Box, NAMES, corners()), max_size=3).map(tuple),
    points=st.lists(st.builds(Point, NAMES, POSITIONS), max_size=3).map(tuple),
    scribbles=st.lists(
        st.builds(
            Scribble,
            NAMES,
            st.lists(POSITIONS, min_size=2, max_size=4).map(tuple),
            st.integers(1, 9) | st.floats(0.1, 9),
        ),
        max_size=3,
    ).map(tuple),
    ignore=st.lists(
        st.builds(Area, corners())
        | st.builds(Area, st.none(), st.lists(POSITIONS, min_size=3, max_size=5).map(tuple)),
        max_size=2,
    ).map(tuple),
)


@given(ANNOTATIONS)
def test_json_round_trip_loses_nothing(annotation):
    import json

    text = json.dumps(annotation.to_dict(), allow_nan=False)
    assert Annotation.from_dict(json.loads(text)) == annotation


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["class", "xy", "xyxy", "width", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["tags", "boxes", "points", "scribbles", "ignore"]), JSON))
def test_parse_survives_any_json(data):
    annotation, problems = Annotation.parse(data)
    again, none = Annotation.parse(annotation.to_dict())
    assert again == annotation
    assert none == []
    assert all(str(problem) for problem in problems)

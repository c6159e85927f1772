import json
import pickle

import pytest

from weakseg.errors import InputError, InputErrors, Problem


@pytest.mark.parametrize(
    ("place", "details", "expected"),
    [
        ({}, {}, "box with x1 <= x0"),
        ({"file": "a.jsonl"}, {}, "a.jsonl: box with x1 <= x0"),
        (
            {"file": "a.jsonl", "line": 12},
            {"found": [10, 5, 3, 9], "rule": "x0 < x1"},
            "a.jsonl:12: box with x1 <= x0: found [10, 5, 3, 9]; expected x0 < x1",
        ),
        ({}, {"found": 0}, "box with x1 <= x0: found 0"),
        ({}, {"found": "two\nlines"}, "box with x1 <= x0: found two lines"),
        ({}, {"found": "caf\udce9 \x1b[31m é"}, r"box with x1 <= x0: found caf\udce9 \x1b[31m é"),
        ({"file": "\udce9.jpg"}, {}, r"\udce9.jpg: box with x1 <= x0"),
        ({}, {"found": "x" * 500}, "box with x1 <= x0: found " + "x" * 157 + "..."),
    ],
)
def test_message(place, details, expected):
    error = InputError("box with x1 <= x0", **place, **details)
    assert str(error) == expected
    assert str(Problem.from_error(error)) == expected
    json.dumps(Problem.from_error(error).to_dict(), ensure_ascii=False).encode()


def test_errors_cross_processes():
    error = InputError("what", file="f", line=3, found=[1], rule="r")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.line, again.found) == (str(error), 3, [1])
    several = InputErrors([Problem("a", "f", 1), Problem("b", "f", 2)])
    again = pickle.loads(pickle.dumps(several))
    assert str(again) == str(several) == "f:1: a\nf:2: b"


def test_problem_and_error_convert_both_ways():
    problem = Problem("what", "f", 3, [1], "r")
    assert Problem.from_error(problem.error()) == problem
    assert not Problem.from_error(problem.error(), fatal=False).fatal
    assert json.loads(json.dumps(problem.to_dict()))["found"] == "[1]"


def test_the_first_place_is_kept():
    placed = InputError("what").at("a", 1)
    assert str(placed) == "a:1: what"
    assert placed.at("b", 2) is placed
    assert str(Problem("what").at("a", 1).at("b", 2)) == "a:1: what"


def test_a_value_that_names_billions_is_not_written_out():
    value = ["x"]
    for _ in range(40):
        value = [value] * 9
    assert "found [[[" in str(InputError("names", found=value))


def test_what_cannot_be_printed_is_escaped():
    message = str(InputError("class name", found="a\ud800"))
    assert "found a\\ud800" in message

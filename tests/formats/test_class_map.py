from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from weakseg.errors import InputError, InputErrors
from weakseg.formats.class_map import load_map, map_classes
from weakseg.formats.records import SourceClass


@pytest.mark.parametrize(
    ("names", "classes", "mapping", "targets"),
    [
        (["coral"], ["coral", "sand"], None, {"coral": "coral"}),
        (["Coral", "SEA-GRASS "], ["coral", "sea_grass"], None, ["coral", "sea_grass"]),
        (["hard coral"], ["coral"], {"hard coral": "coral"}, ["coral"]),
        (["Hard_Coral"], ["coral"], {"hard coral": "Coral"}, ["coral"]),
        (["shadow"], ["coral"], {"shadow": None}, [None]),
        (["blurred"], ["coral"], {"blurred": "ignore"}, ["ignore"]),
        (["ignore"], ["coral"], None, ["ignore"]),
        (["ignore"], ["coral", "ignore"], None, ["ignore"]),
        (["class 3"], ["coral"], {"3": "coral"}, ["coral"]),
        (["#ff0000"], ["coral"], {"#FF0000": "coral"}, ["coral"]),
        # The map comes before the name itself.
        (["coral"], ["coral", "sand"], {"coral": "sand"}, ["sand"]),
    ],
)
def test_names_are_placed(names: Any, classes: Any, mapping: Any, targets: Any) -> None:
    found = map_classes([], Counter(names), classes=classes, mapping=mapping)
    targets = targets if isinstance(targets, dict) else dict(zip(names, targets, strict=True))
    assert found.targets == targets
    assert found.classes == tuple(classes)
    assert found.ignores(names[0]) == (
        [*targets.values()] == ["ignore"] and "ignore" not in classes
    )


def test_ids_and_colours_of_declared_classes() -> None:
    declared = [SourceClass("a", 1), SourceClass("b", 7, (255, 0, 16)), SourceClass("c", "x9")]
    mapping = {"1": "one", "#ff0010": "two", "x9": "three"}
    found = map_classes(declared, Counter("abc"), mapping=mapping)
    assert found.targets == {"a": "one", "b": "two", "c": "three"}
    assert found.classes == ("one", "two", "three")


def test_without_a_list_the_classes_are_those_of_the_source() -> None:
    declared = [SourceClass("zebra", 1), SourceClass("unused", 2)]
    used = Counter({"zebra": 3, "class 10": 1, "class 9": 1, "ant": 5, "Ant": 1, "ignore": 1})
    found = map_classes(declared, used)
    assert found.classes == ("zebra", "unused", "ant", "class 9", "class 10")
    assert found.targets["Ant"] == "ant"
    assert found.ignores("ignore")
    assert [str(p) for p in found.problems] == [
        "taken for 'ant': found 'Ant'; expected one spelling"
    ]


def test_unknown_classes_are_named_at_once() -> None:
    used = Counter({"coral": 4, "corl": 12, "zebra": 3, "rock": 1, "shadow": 2})
    mapping = {"rock": "stone", "shadow": None, "zebras": "sand"}
    with pytest.raises(InputErrors) as caught:
        map_classes([], used, classes=["coral", "sand"], mapping=mapping)
    rule = "a class of the list or a line in --map"
    assert str(caught.value).splitlines() == [
        f"unknown class 'rock' (mapped to 'stone'): found 1 label; expected {rule}",
        f"unknown class 'corl': found 12 labels; expected 'coral', perhaps; {rule}",
        f"unknown class 'zebra': found 3 labels; expected {rule}",
        "line of the map that matches nothing: found zebras; "
        "expected a name, id or colour of the source",
    ]


def test_a_class_that_is_declared_and_unused_may_be_unknown() -> None:
    found = map_classes([SourceClass("rock", 1)], Counter({"coral": 1}), classes=["coral"])
    assert found.targets == {"coral": "coral"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a map of classes"),
        ("- a\n- b", "not a map of classes"),
        ("a: [b]", "class name: found a: "),
        ("a: true\nb: ''", "found b:;"),
        ("a: b: c", "not valid YAML"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
        ("a: x\n1: coral\n1: sand", "map.yaml:3: not valid YAML: found key 1 given twice"),
        ('1: coral\n"1": sand', "map.yaml:2: not valid YAML: found key 1 given twice"),
        ('0x1: coral\n"1": sand', "map.yaml: key given twice: found 1"),
    ],
)
def test_a_bad_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_map(tmp_path / "map.yaml")
    assert message in str(caught.value)


def test_a_map_is_read(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text('Hard Coral: coral\n7: sand\n"#ff0000": 12\nshadow: null\n')
    expected = {"Hard Coral": "coral", "7": "sand", "#ff0000": "12", "shadow": None}
    assert load_map(tmp_path / "map.yaml") == expected

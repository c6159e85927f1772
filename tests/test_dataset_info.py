"""dataset.yaml: the classes and rules of a data set."""

import pytest
from made_datasets import INFO, make

from weakseg.dataset import Dataset, DatasetInfo
from weakseg.errors import InputError


def test_info_round_trip(tmp_path):
    info = DatasetInfo("größe: x", ("yes", "12", "a: b"), None, 200, True, False)
    info.save(tmp_path / "dataset.yaml")
    assert DatasetInfo.load(tmp_path / "dataset.yaml") == info


def test_info_indices():
    assert INFO.unlabelled == 3
    assert INFO.background_index == 0
    assert DatasetInfo("x", ("a",)).background_index is None
    assert INFO.index("sand") == 2
    with pytest.raises(
        InputError, match="'corall' is not in the list of classes: expected 'coral'"
    ):
        INFO.index("corall")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "dataset.yaml: not a data set"),
        ("[1, 2]", "not a data set: found [1, 2]"),
        ("name: [", "dataset.yaml:1: not valid YAML"),
        ("name: a\nclasses: {", "dataset.yaml:2: not valid YAML"),
        ("name: a\nclasses: [b]\nname: c", "dataset.yaml:3: not valid YAML: found key name given"),
        ("name: a", "classes: found nothing; expected a list of names"),
        ("classes: [a]", "name: found nothing; expected text"),
        ("name: a\nclasses: []", "classes: found []"),
        ("name: a\nclasses: {0: a}", "classes: found {0: 'a'}; expected a list of names"),
        ("name: a\nclasses: [yes, b]", "class name: found True; expected text, in quotes"),
        ("name: a\nclasses: [a, 12]", "class name: found 12; expected text, in quotes"),
        ("name: a\nclasses: [a, b, a]", "class listed twice: found a"),
        (
            f"name: a\nclasses: {['x' + str(i) for i in range(255)]}",
            "found 255; expected at most",
        ),
        ("name: a\nclasses: [a]\nbackground: b", "background is not a class: found b"),
        ("name: a\nclasses: [a]\nignore: 0", "ignore is the value of a class or of unlabelled"),
        ("name: a\nclasses: [a]\nignore: 1", "found 1; expected a value above 1"),
        ("name: a\nclasses: [a]\nignore: 256", "ignore: found 256; expected a number in 0..255"),
        ("name: a\nclasses: [a]\nignore: true", "ignore: found True"),
        ("name: a\nclasses: [a]\nboxes_exhaustive: 1", "boxes_exhaustive: found 1; expected true"),
        ("name: a\nclasses: [a]\nclases: [b]", "unknown key: found clases; expected name, classes"),
    ],
)
def test_what_is_wrong_with_a_dataset_yaml(tmp_path, text, message):
    make(tmp_path, {"image": "images/a.png"}, yaml=text)
    with pytest.raises(InputError) as caught:
        Dataset.open(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "dataset.yaml") in str(caught.value)


def test_every_problem_of_a_dataset_yaml_is_listed(tmp_path):
    make(tmp_path, yaml="name: 3\nclasses: [a, a, no]\nignore: x\nfoo: 1\nbar: 2")
    info, problems = DatasetInfo.parse(tmp_path / "dataset.yaml")
    assert info is None
    assert [p.what for p in problems] == [
        "unknown key",
        "unknown key",
        "name",
        "class name",
        "class listed twice",
        "ignore",
    ]


@pytest.mark.parametrize(
    "name", ["a\nignore: 3", "'", "ignore: 3", "- x", "# no", "ü" * 200, "null"]
)
def test_any_name_survives_yaml(tmp_path, name):
    info = DatasetInfo(name, (name, "b" * 300), name)
    info.save(tmp_path / "dataset.yaml")
    assert DatasetInfo.load(tmp_path / "dataset.yaml") == info

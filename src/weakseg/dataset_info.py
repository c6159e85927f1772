"""`dataset.yaml`: what holds for all images of a data set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from weakseg.errors import InputError, Problem
from weakseg.files import write_text


@dataclass(frozen=True)
class DatasetInfo:
    """Name, classes and rules of a data set.

    Args:
        name: what reports call the data set.
        classes: names, at most 254; the position is the class index.
        background: the class that is no object, or None where there is no such class.
        ignore: value of ignored pixels in masks and seed maps.
        boxes_exhaustive: in an image with boxes, every object of a class in the list has one;
            pixels outside every box are background then.
        tags_exhaustive: in an image with tags, classes without a tag do not occur (background
            need not be named).

    Raises:
        InputError: the members do not fit together.
    """

    name: str
    classes: tuple[str, ...]
    background: str | None = None
    ignore: int = 255
    boxes_exhaustive: bool = False
    tags_exhaustive: bool = True

    def __post_init__(self) -> None:
        problems = find_problems({f.name: getattr(self, f.name) for f in fields(self)})
        if problems:
            raise problems[0].error()
        object.__setattr__(self, "classes", tuple(self.classes))

    @property
    def unlabelled(self) -> int:
        """Value of unlabelled pixels in a seed map: the number of classes."""
        return len(self.classes)

    @property
    def background_index(self) -> int | None:
        """Index of the background class, None where there is none."""
        return None if self.background is None else self.classes.index(self.background)

    def index(self, name: str) -> int:
        """Index of the class called `name`.

        Raises:
            InputError: there is no such class.
        """
        try:
            return self.classes.index(name)
        except ValueError:
            close = difflib.get_close_matches(str(name), self.classes, 1)
            hint = f"{close[0]!r}, perhaps, or another " if close else ""
            raise InputError(
                f"class {name!r} is not in the list of classes",
                rule=f"{hint}one of {', '.join(self.classes)}",
            ) from None

    @classmethod
    def load(cls, path: str | PathLike[str]) -> DatasetInfo:
        """Read a `dataset.yaml`.

        Raises:
            InputError: missing, not YAML, or breaking a rule.
        """
        info, problems = cls.parse(path)
        if info is None:
            raise problems[0].error()
        return info

    @classmethod
    def parse(cls, path: str | PathLike[str]) -> tuple[DatasetInfo | None, list[Problem]]:
        """Read a `dataset.yaml`, listing every problem; with any, there is no `DatasetInfo`."""
        try:
            data = yaml.load(Path(path).read_text(encoding="utf-8-sig"), UniqueKeyLoader)
        except FileNotFoundError:
            rule = "a data set's dataset.yaml, as weakseg init writes it for photographs"
            return None, [Problem("no such file", file=str(path), rule=rule)]
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = None if mark is None else mark.line + 1
            found = getattr(error, "problem", None) or str(error)
            return None, [Problem("not valid YAML", file=str(path), line=line, found=found)]
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            return None, [Problem("cannot be read", file=str(path), found=str(error))]
        if not isinstance(data, Mapping):
            rule = "keys name, classes, ..."
            return None, [Problem("not a data set", file=str(path), found=data, rule=rule)]
        problems = [p.at(path) for p in find_problems(data)]
        return (None if problems else cls(**data)), problems

    def save(self, path: str | PathLike[str]) -> None:
        """Write a `dataset.yaml`, whole or not at all."""
        write_text(path, self.to_yaml())

    def to_yaml(self) -> str:
        """The text of a `dataset.yaml`, with a comment on every key."""
        data = {f.name: getattr(self, f.name) for f in fields(self)} | {"classes": [*self.classes]}
        # The list makes yaml write a line for each key, and the list itself on one.
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None)
        for key, comment in _COMMENTS.items():
            text = re.sub(f"^{key}:", f"# {comment}\n{key}:", text, flags=re.MULTILINE)
        return text


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML whose mappings hold each key once; YAML itself lets the last one win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node; `ConstructorError` at a key that has come before."""
        keys = [key.value for key, _ in node.value]
        for i, (key, _) in enumerate(node.value):
            if key.value in keys[:i]:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key.value} given twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


_COMMENTS = {
    "name": "What reports call the data set.",
    "classes": "The position is the class index; in masks, the pixel value.",
    "background": "The class that is no object, or null.",
    "ignore": "Value of ignored pixels in masks.",
    "boxes_exhaustive": "true: pixels outside an image's boxes hold none of the classes.",
    "tags_exhaustive": "true: classes that an image's tags leave out do not occur in it.",
}


def find_problems(data: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with the content of a `dataset.yaml`."""
    problems = []
    known = [f.name for f in fields(DatasetInfo)]
    for key in data:
        if key not in known:
            problems.append(Problem("unknown key", found=key, rule=", ".join(known)))
    name = data.get("name")
    if not isinstance(name, str) or not name:
        problems.append(Problem("name", found=_given(name), rule="text"))
    problems += _class_problems(data.get("classes"))
    for key in ("boxes_exhaustive", "tags_exhaustive"):
        if key in data and not isinstance(data[key], bool):
            problems.append(Problem(key, found=_given(data[key]), rule="true or false"))
    ignore = data.get("ignore", 255)
    if not isinstance(ignore, int) or isinstance(ignore, bool) or not 0 <= ignore <= 255:
        problems.append(Problem("ignore", found=_given(ignore), rule="a number in 0..255"))
    if problems:
        return problems

    classes, background = [*data["classes"]], data.get("background")
    if ignore <= len(classes):
        # In a seed map the value after the last class means unlabelled.
        found, rule = ignore, f"a value above {len(classes)}, the number of classes"
        problems.append(
            Problem("ignore is the value of a class or of unlabelled", None, None, found, rule)
        )
    if background is not None and background not in classes:
        rule = f"null or one of {', '.join(classes)}"
        problems.append(Problem("background is not a class", found=background, rule=rule))
    return problems


def _class_problems(classes: object) -> list[Problem]:
    if not isinstance(classes, list | tuple) or not classes:
        return [Problem("classes", found=_given(classes), rule="a list of names")]
    problems = []
    for value in classes:
        if not isinstance(value, str) or not value.strip():
            # YAML reads yes, no, on, off and 12 as something else than text.
            rule = "text, in quotes where it looks like a number or a yes/no"
            problems.append(Problem("class name", found=_given(value), rule=rule))
        elif not is_writable(value):
            problems.append(Problem("class name", found=value, rule="characters of Unicode"))
    names = [value for value in classes if isinstance(value, str)]
    for name in dict.fromkeys(n for n in names if names.count(n) > 1):
        problems.append(Problem("class listed twice", found=name, rule="unique names"))
    if len(classes) > 254:
        rule = "at most 254, as masks have 8 bits"
        problems.append(Problem("too many classes", found=len(classes), rule=rule))
    return problems


def is_writable(text: str) -> bool:
    """Whether text can be written as UTF-8: half of a surrogate pair, out of JSON, cannot."""
    return text.isascii() or text.encode("utf-8", "replace").decode() == text


def _given(value: object) -> object:
    return "nothing" if value is None else value

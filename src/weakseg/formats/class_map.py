"""From the class names of a source to those of a data set.

A name is looked up in the user's map (by itself, by the class's id, by its colour), then in the
list of classes: as it is, then without regard to case, spaces, `-` and `_`. What cannot be
placed is reported at once, with the number of labels it would cost.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from weakseg.dataset_info import UniqueKeyLoader
from weakseg.errors import InputError, InputErrors, Problem
from weakseg.formats.reading import read_text
from weakseg.formats.records import IGNORE, SourceClass
from weakseg.wording import counted


@dataclass
class ClassMap:
    """How the names of a source are read.

    Attributes:
        classes: of the data set, in the order of their indices.
        targets: class of each source name; None: left out on purpose; `IGNORE`: to be ignored,
            where no class is called so.
        own: whether the classes are those of the source.
        problems: names that were merged or left out.
    """

    classes: tuple[str, ...]
    targets: dict[str, str | None]
    own: bool = False
    problems: list[Problem] = field(default_factory=list)

    def ignores(self, label: str) -> bool:
        """Whether a source name marks areas to ignore."""
        return self.targets.get(label) == IGNORE and IGNORE not in self.classes


def load_map(path: str | PathLike[str]) -> dict[str, str | None]:
    """Read a map of classes: YAML, `source name, id or "#rrggbb": class` on each line.

    `null` leaves a class out, `ignore` marks its pixels as to be ignored.

    Raises:
        InputError: missing, not YAML, not such a table, or with a key given twice.
    """
    path = Path(path)
    try:
        data = yaml.load(read_text(path), UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        found = getattr(error, "problem", None) or str(error)
        raise InputError("not valid YAML", file=path, line=line, found=found) from error
    except RecursionError as error:
        raise InputError("not valid YAML", file=path, found="nested too deeply") from error
    rule = "source name: class, on each line"
    if not isinstance(data, dict) or not data:
        raise InputError("not a map of classes", file=path, found=data, rule=rule)
    return check_map(data, file=path)


def check_map(data: Mapping[Any, Any], file: Path | None = None) -> dict[str, str | None]:
    """A map of classes with text for keys.

    Raises:
        InputErrors: values that are no names, or a number given as a number and as text.
    """
    place = None if file is None else str(file)
    keys = Counter(str(key) for key in data)
    problems = [
        Problem("class name", place, found=_shown(key, value), rule="text in quotes, or null")
        for key, value in data.items()
        if isinstance(value, bool) or not isinstance(value, str | int | None) or value == ""
    ]
    twice = [key for key, count in keys.items() if count > 1]
    problems += (Problem("key given twice", place, found=key, rule="each once") for key in twice)
    if problems:
        raise InputErrors(problems)
    return {str(key): None if value is None else str(value) for key, value in data.items()}


def _shown(key: object, value: object) -> str:
    """A line of a map; a list or table in it may be far larger than the file."""
    return f"{key}: {value if isinstance(value, str | int | float) else type(value).__name__}"


def map_classes(
    declared: Sequence[SourceClass],
    used: Counter[str],
    *,
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, str | None] | None = None,
    places: Mapping[str, tuple[str | None, int | None]] | None = None,
) -> ClassMap:
    """Decide on the classes of a data set, and on what the names of its source mean.

    Args:
        declared: classes that the source declares.
        used: names that occur in it, with the number of labels.
        classes: classes of the data set; default: those of the source, after the map.
        mapping: the user's map.
        places: file and line of a label of each name, where they are known.

    Raises:
        InputErrors: names that are neither mapped nor in the list, all of them.
    """
    sources = {c.name: c for c in reversed([*declared])}
    # Classes keep the order of the source; what it does not declare follows that of the map.
    order = [*sources][::-1]
    rest = [_undeclared(name) for name in used if name not in sources]
    rest.sort(key=lambda c: (_place(c, mapping), _natural(c.name)))
    sources |= {c.name: c for c in rest}
    names = [*order, *(c.name for c in rest)]
    found = {name: _from_map(sources[name], mapping) for name in names}
    mapped = {name: target for name, (key, target) in found.items() if key is not None}
    wanted = {name: mapped.get(name, name) for name in names}
    known = tuple(classes) if classes is not None else None
    result = ClassMap(known or (), {}, own=known is None)
    if known is None:
        result.classes = _own_classes(wanted, used, result.problems)
    unknown = []
    for name, want in wanted.items():
        target = None if want is None else match_class(want, result.classes)
        if target is None and want == IGNORE:
            target = IGNORE
        if target is None and want is not None:
            if used[name]:
                problem = _unknown(name, want, used[name], result.classes)
                unknown.append(problem.at(*(places or {}).get(name, (None, None))))
            continue
        result.targets[name] = target
        if want is None and used[name]:
            what = "class left out, as the map says"
            result.problems.append(
                Problem(what, found=f"{name}, {counted(used[name], 'label')}", fatal=False)
            )
    if unknown:
        raise InputErrors(
            [*unknown, *_idle_lines(mapping or (), {key for key, _ in found.values()})]
        )
    return result


def _idle_lines(keys: Iterable[str], matched: Container[str | None]) -> list[Problem]:
    """Keys of the map that mean no class, which may be why a class is unknown.

    Where all are known, nothing is said: a map may be for several sources.
    """
    what, rule = "line of the map that matches nothing", "a name, id or colour of the source"
    return [Problem(what, found=key, rule=rule) for key in keys if key not in matched]


def match_class(name: str, classes: Sequence[str]) -> str | None:
    """The class that `name` means: itself, or the only one that differs in case and the like."""
    if name in classes:
        return name
    close = [c for c in classes if plain_name(c) == plain_name(name)]
    return close[0] if len(close) == 1 else None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts `class 2` before `class 10`."""
    parts = re.split(r"(\d{1,18})", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def plain_name(name: str) -> str:
    """A name without what people write differently: case, spaces, `-` and `_`."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _undeclared(name: str) -> SourceClass:
    number = re.fullmatch(r"class (\d{1,18})", name)  # what a value without a name is called
    return SourceClass(name, int(number[1]) if number else None)


def _from_map(
    source: SourceClass, mapping: Mapping[str, str | None] | None
) -> tuple[str | None, str | None]:
    """The key of the map that means this class (None: there is none), and what it says."""
    keys = [source.name]
    if source.id is not None:
        keys.append(str(source.id))
    if source.colour is not None:
        keys.append("#{:02x}{:02x}{:02x}".format(*source.colour))
    mapping = mapping or {}
    plain = {plain_name(key): key for key in mapping}
    for key in keys:
        if key in mapping:
            return key, mapping[key]
    for key in keys:
        if (match := plain.get(plain_name(key))) is not None:
            return match, mapping[match]
    return None, None


def _place(source: SourceClass, mapping: Mapping[str, str | None] | None) -> int:
    keys = [*(mapping or {})]
    key, _ = _from_map(source, mapping)
    return len(keys) if key is None else keys.index(key)


def _own_classes(
    wanted: Mapping[str, str | None], used: Counter[str], problems: list[Problem]
) -> tuple[str, ...]:
    """The classes of a source; names that differ in case only become one, and that is listed."""
    groups: dict[str, list[str]] = {}
    for want in wanted.values():
        if want is not None and want != IGNORE:
            groups.setdefault(plain_name(want), []).append(want)
    chosen = []
    for spellings in groups.values():
        spelling = max(dict.fromkeys(spellings), key=lambda s: used[s])
        others = [s for s in dict.fromkeys(spellings) if s != spelling]
        chosen.append(spelling)
        if others:
            found = ", ".join(repr(s) for s in others)
            what = f"taken for {spelling!r}"
            problems.append(Problem(what, found=found, rule="one spelling", fatal=False))
    return tuple(chosen)


def _unknown(name: str, want: str, count: int, classes: Sequence[str]) -> Problem:
    close = difflib.get_close_matches(want, classes, 1)
    hint = f"{close[0]!r}, perhaps; " if close else ""
    called = repr(name) if name == want else f"{name!r} (mapped to {want!r})"
    rule = f"{hint}a class of the list or a line in --map"
    return Problem(f"unknown class {called}", found=counted(count, "label"), rule=rule)

"""One image's weak labels.

Positions are `(x, y)`, column then row, in pixels of the image as displayed. An integer is the
centre of that pixel: `(0, 0)` is the top left pixel, fractions lie between centres. Points and
scribble vertices satisfy `0 <= x < width` and `0 <= y < height`. Boxes are half-open: the pixels
with `x0 <= x < x1` and `y0 <= y < y1`, so `0 <= x0 < x1 <= width`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from weakseg.errors import InputError, Problem

KINDS = ("masks", "scribbles", "points", "boxes", "tags")
"""The kinds of label, the most certain first."""

UNPLACED = frozenset({"boxes", "tags"})
"""Kinds that say that a class is there, not where: class maps give their seeds."""

LABEL_KEYS = ("tags", "boxes", "points", "scribbles", "ignore")
"""The keys of an annotation in the native JSON form."""

Number = int | float
Position = tuple[Number, Number]

_LARGEST = 10_000_000
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Box:
    """A rectangle around one object: `xyxy` = (x0, y0, x1, y1), x1 and y1 exclusive."""

    label: str
    xyxy: tuple[Number, Number, Number, Number]

    def __post_init__(self) -> None:
        _check_label("box", self.label)
        object.__setattr__(self, "xyxy", _corners("box", self.xyxy))

    @property
    def area(self) -> float:
        """Area in pixels."""
        x0, y0, x1, y1 = self.xyxy
        return float(x1 - x0) * float(y1 - y0)


@dataclass(frozen=True)
class Point:
    """A click on an object: `xy` = (column, row)."""

    label: str
    xy: Position

    def __post_init__(self) -> None:
        _check_label("point", self.label)
        object.__setattr__(self, "xy", _position("point", self.xy))


@dataclass(frozen=True)
class Scribble:
    """A stroke along `xy`, a polyline of two or more positions, `width` pixels wide."""

    label: str
    xy: tuple[Position, ...]
    width: float = 3

    def __post_init__(self) -> None:
        _check_label("scribble", self.label)
        object.__setattr__(self, "xy", _polyline("scribble", self.xy, at_least=2))
        width = _number("scribble with a width", self.width)
        if width <= 0:
            raise InputError("scribble without width", found=width, rule="width > 0 pixels")
        object.__setattr__(self, "width", width)


@dataclass(frozen=True)
class Area:
    """An area to ignore: either a box `xyxy` or a polygon `xy` of three or more positions.

    A polygon holds the pixels whose centres lie inside it or on its edge.
    """

    xyxy: tuple[Number, Number, Number, Number] | None = None
    xy: tuple[Position, ...] | None = None

    def __post_init__(self) -> None:
        if (self.xyxy is None) == (self.xy is None):
            raise InputError("area to ignore", rule="either xyxy (a box) or xy (a polygon)")
        if self.xyxy is not None:
            object.__setattr__(self, "xyxy", _corners("area to ignore", self.xyxy))
        if self.xy is not None:
            object.__setattr__(self, "xy", _polyline("area to ignore", self.xy, at_least=3))


@dataclass(frozen=True, eq=False)
class Annotation:
    """All labels of one image; every kind may be absent and all kinds combine.

    Args:
        tags: classes in the image.
        boxes: boxes around objects.
        points: clicked points.
        scribbles: strokes.
        mask: full mask, (H, W) of class indices, as an array or as the path of an L or P PNG.
        ignore: areas that take no part in anything.

    Raises:
        InputError: a member breaks a rule that can be seen without the image.
    """

    tags: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    scribbles: tuple[Scribble, ...] = ()
    mask: NDArray[Any] | Path | None = None
    ignore: tuple[Area, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.tags, str):
            raise InputError("tags", found=self.tags, rule="a list of class names")
        for tag in self.tags:
            _check_label("tag", tag)
        object.__setattr__(self, "tags", tuple(dict.fromkeys(self.tags)))
        for name, kind in _ITEMS.items():
            items = tuple(getattr(self, name))
            for item in items:
                if not isinstance(item, kind):
                    raise InputError(name, found=item, rule=f"{kind.__name__} objects")
            object.__setattr__(self, name, items)
        if isinstance(self.mask, str):
            object.__setattr__(self, "mask", Path(self.mask))
        elif isinstance(self.mask, np.ndarray) and (
            self.mask.ndim != 2 or self.mask.dtype.kind not in "iu"
        ):
            raise InputError(
                "mask",
                found=f"shape {self.mask.shape}, dtype {self.mask.dtype}",
                rule="(H, W) of integers",
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Annotation):
            return NotImplemented
        if isinstance(self.mask, np.ndarray) and isinstance(other.mask, np.ndarray):
            same = np.array_equal(self.mask, other.mask)
        else:
            same = type(self.mask) is type(other.mask) and self.mask == other.mask
        names = ("tags", *_ITEMS)
        return same and all(getattr(self, n) == getattr(other, n) for n in names)

    __hash__ = None  # type: ignore[assignment]  # a mask array has no hash

    @property
    def kinds(self) -> set[str]:
        """The kinds of label that are present, out of `KINDS`."""
        present = {kind for kind in KINDS[1:] if getattr(self, kind)}
        return present if self.mask is None else present | {"masks"}

    @property
    def labels(self) -> set[str]:
        """Names of the classes that tags, boxes, points and scribbles name."""
        items: Iterable[Box | Point | Scribble] = (*self.boxes, *self.points, *self.scribbles)
        return {*self.tags, *(item.label for item in items)}

    def restrict(self, kinds: Collection[str]) -> Annotation:
        """This annotation with only the given kinds of label; areas to ignore stay.

        Raises:
            InputError: one of `kinds` is not in `KINDS`.
        """
        check_kinds(kinds)
        return replace(
            self,
            tags=self.tags if "tags" in kinds else (),
            boxes=self.boxes if "boxes" in kinds else (),
            points=self.points if "points" in kinds else (),
            scribbles=self.scribbles if "scribbles" in kinds else (),
            mask=self.mask if "masks" in kinds else None,
        )

    def validate(
        self, width: int | None, height: int | None, classes: Collection[str]
    ) -> list[Problem]:
        """Check against the image and the list of classes.

        Args:
            width: of the image in pixels; None leaves positions unchecked.
            height: of the image in pixels.
            classes: the names that labels may have.

        Returns:
            Every problem found, none of them placed in a file. A mask array's size is checked,
            a mask file is not read.
        """
        problems = [
            Problem(
                f"class {label!r} is not in the list of classes",
                found=label,
                rule=f"one of {', '.join(classes)}",
            )
            for label in sorted(self.labels - set(classes))
        ]
        if width is None or height is None:
            return problems
        where = f"0 <= x < {width} and 0 <= y < {height}"
        for point in self.points:
            if not _inside(point.xy, width, height):
                problems.append(Problem("point outside the image", found=[*point.xy], rule=where))
        for scribble in self.scribbles:
            outside = [xy for xy in scribble.xy if not _inside(xy, width, height)]
            if outside:
                problems.append(
                    Problem("scribble outside the image", found=[*outside[0]], rule=where)
                )
        where = f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        for box in self.boxes:
            x0, y0, x1, y1 = box.xyxy
            if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
                problems.append(Problem("box outside the image", found=[*box.xyxy], rule=where))
        if isinstance(self.mask, np.ndarray) and self.mask.shape != (height, width):
            found = f"{self.mask.shape[1]} x {self.mask.shape[0]}"
            problems.append(
                Problem("mask of another size", found=found, rule=f"{width} x {height}")
            )
        return problems

    @classmethod
    def parse(
        cls, data: Mapping[str, Any], *, mask: NDArray[Any] | Path | None = None
    ) -> tuple[Annotation, list[Problem]]:
        """Read the native JSON form, keeping what is right and listing what is not.

        Args:
            data: an object with any of `LABEL_KEYS`; other keys are left to the caller.
            mask: the full mask, where there is one.
        """
        problems: list[Problem] = []

        def items(key: str, build: Callable[[Any], _Item]) -> tuple[_Item, ...]:
            values = data.get(key)
            if values is None:
                return ()
            if not isinstance(values, list | tuple):
                problems.append(Problem(f"{key} is not a list", found=values, rule="a list"))
                return ()
            built = []
            for value in values:
                try:
                    built.append(build(value))
                except InputError as error:
                    problems.append(Problem.from_error(error))
            return tuple(built)

        annotation = cls(
            tags=items("tags", _tag),
            boxes=items("boxes", _box),
            points=items("points", _point),
            scribbles=items("scribbles", _scribble),
            ignore=items("ignore", _area),
            mask=mask,
        )
        return annotation, problems

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, mask: NDArray[Any] | Path | None = None
    ) -> Annotation:
        """Read the native JSON form.

        Raises:
            InputError: the first thing in `data` that is wrong.
        """
        unknown = [key for key in data if key not in LABEL_KEYS]
        if unknown:
            raise InputError("unknown key", found=unknown[0], rule=", ".join(LABEL_KEYS))
        annotation, problems = cls.parse(data, mask=mask)
        if problems:
            raise problems[0].error()
        return annotation

    def to_dict(self) -> dict[str, Any]:
        """The native JSON form, without empty kinds and without the mask, a file of its own."""
        data: dict[str, Any] = {}
        if self.tags:
            data["tags"] = [*self.tags]
        if self.boxes:
            data["boxes"] = [{"class": b.label, "xyxy": [*b.xyxy]} for b in self.boxes]
        if self.points:
            data["points"] = [{"class": p.label, "xy": [*p.xy]} for p in self.points]
        if self.scribbles:
            data["scribbles"] = [
                {"class": s.label, "width": s.width, "xy": [[*xy] for xy in s.xy]}
                for s in self.scribbles
            ]
        if self.ignore:
            data["ignore"] = [
                {"xyxy": [*a.xyxy]} if a.xyxy else {"xy": [[*xy] for xy in a.xy or ()]}
                for a in self.ignore
            ]
        return data


_ITEMS: dict[str, type] = {"boxes": Box, "points": Point, "scribbles": Scribble, "ignore": Area}


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """The given kinds of label without repeats, in the order of `KINDS`.

    Raises:
        InputError: one of them is not a kind.
    """
    given = [kinds] if isinstance(kinds, str) else [*kinds]
    for kind in given:
        if kind not in KINDS:
            raise InputError("unknown kind of label", found=kind, rule=", ".join(KINDS))
    return tuple(kind for kind in KINDS if kind in given)


def _tag(value: Any) -> str:
    _check_label("tag", value)
    return str(value)


def _box(value: Any) -> Box:
    fields = _fields("box", value, ("class", "xyxy"))
    return Box(fields["class"], fields["xyxy"])


def _point(value: Any) -> Point:
    fields = _fields("point", value, ("class", "xy"))
    return Point(fields["class"], fields["xy"])


def _scribble(value: Any) -> Scribble:
    fields = _fields("scribble", value, ("class", "xy"), optional=("width",))
    return Scribble(fields["class"], fields["xy"], fields.get("width", Scribble.width))


def _area(value: Any) -> Area:
    fields = _fields("area to ignore", value, (), optional=("xyxy", "xy"))
    return Area(fields.get("xyxy"), fields.get("xy"))


def _fields(
    what: str, value: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    rule = "{" + ", ".join(f'"{key}": ...' for key in (*required, *optional)) + "}"
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is not an object", found=value, rule=rule)
    for key in required:
        if key not in value:
            raise InputError(f"{what} without {key!r}", found=dict(value), rule=rule)
    for key in value:
        if key not in required and key not in optional:
            raise InputError(f"{what} with an unknown key", found=key, rule=rule)
    return value


def _check_label(what: str, label: object) -> None:
    if not isinstance(label, str) or not label:
        raise InputError(f"{what} whose class is not a name", found=label, rule="text")


def _number(what: str, value: Any) -> Number:
    if isinstance(value, Real) and not isinstance(value, bool):
        number: Number = int(value) if isinstance(value, Integral) else float(value)
        # Comparing with a NaN is false, so this refuses NaN, infinities and absurd sizes alike.
        if -_LARGEST <= number <= _LARGEST:
            return number
    raise InputError(f"{what} that is not usable", found=value, rule="a finite number")


def _position(what: str, value: Any) -> Position:
    if not _is_sequence(value) or len(value) != 2:
        raise InputError(f"{what} without a position", found=value, rule="[x, y]")
    x, y = (_number(f"{what} with a coordinate", v) for v in value)
    return x, y


def _polyline(what: str, value: Any, *, at_least: int) -> tuple[Position, ...]:
    rule = f"{at_least} or more positions [x, y]"
    if not _is_sequence(value):
        raise InputError(f"{what} without positions", found=value, rule=rule)
    if len(value) < at_least:
        noun = "position" if len(value) == 1 else "positions"
        raise InputError(f"{what} of {len(value)} {noun}", found=value, rule=rule)
    return tuple(_position(what, v) for v in value)


def _corners(what: str, value: Any) -> tuple[Number, Number, Number, Number]:
    if not _is_sequence(value) or len(value) != 4:
        raise InputError(f"{what} without corners", found=value, rule="[x0, y0, x1, y1]")
    x0, y0, x1, y1 = (_number(f"{what} with a coordinate", v) for v in value)
    if x0 >= x1:
        raise InputError(f"{what} with x1 <= x0", found=[x0, y0, x1, y1], rule="x0 < x1")
    if y0 >= y1:
        raise InputError(f"{what} with y1 <= y0", found=[x0, y0, x1, y1], rule="y0 < y1")
    return x0, y0, x1, y1


def _is_sequence(value: object) -> bool:
    return isinstance(value, np.ndarray) or (
        isinstance(value, Sequence) and not isinstance(value, str | bytes)
    )


def _inside(xy: Position, width: int, height: int) -> bool:
    return 0 <= xy[0] < width and 0 <= xy[1] < height

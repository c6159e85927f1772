"""What every format is read into: one image's labels under the source's own class names.

Boxes and outlines are in *edge* coordinates, in which pixel i covers i..i+1, as most tools draw
them; points and strokes are in the native *centre* coordinates, in which i is the middle of
pixel i (`to_centre` leads from the first to the second).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg.annotation import Box, Point, Scribble
from weakseg.errors import InputError, Problem
from weakseg.formats.rasters import Patch, Ring, fill_rings, runs_to_patch
from weakseg.formats.reading import LARGEST, check_number

if TYPE_CHECKING:
    from weakseg.formats.image_index import ImageIndex

IGNORE = "ignore"
"""A label of this name marks areas to ignore, unless a class is called so."""


@dataclass(frozen=True)
class SourceClass:
    """A class as the source declares it."""

    name: str
    id: int | str | None = None
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class RowPoint(Point):
    """A point of a table with its place, for messages: an image may have rows in several files."""

    file: str = ""
    line: int = 0


class Region(Protocol):
    """Pixels of one class, drawn when the size of the image is known."""

    @property
    def label(self) -> str:
        """The class."""
        ...

    def draw(self, size: tuple[int, int]) -> Patch:
        """The pixels in an image of `size` = (H, W); `InputError` where it does not fit."""
        ...


@dataclass(frozen=True, eq=False)
class Outline:
    """Pixels whose centres lie in a polygon.

    Args:
        label: the class.
        rings: outlines (n, 2) in edge coordinates; a ring within a ring is a hole.
    """

    label: str
    rings: tuple[Ring, ...]

    @classmethod
    def of(cls, label: str, *rings: Any) -> Outline:
        """An outline of positions that have not been checked yet.

        Raises:
            InputError: no ring, or one without three usable positions.
        """
        return cls(label, tuple(_ring(ring) for ring in rings))

    def draw(self, size: tuple[int, int]) -> Patch:
        """The pixels in an image of `size` = (H, W)."""
        return fill_rings(self.rings, size)


@dataclass(frozen=True)
class Runs:
    """Pixels given by run lengths: `counts[0]` pixels outside, `counts[1]` inside, and so on.

    Args:
        label: the class.
        counts: the run lengths.
        size: (H, W) of the window that they fill.
        corner: (x, y) of its upper left pixel.
        by_columns: whether runs go down the columns (COCO) instead of along the rows (CVAT).
        whole: whether the window must be the whole image.
    """

    label: str
    counts: Sequence[int]
    size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    by_columns: bool = False
    whole: bool = False

    def draw(self, size: tuple[int, int]) -> Patch:
        """The pixels in an image of `size` = (H, W)."""
        if self.whole and tuple(self.size) != tuple(size):
            raise InputError("mask of another size", found=self.size, rule=f"(H, W) = {size}")
        return runs_to_patch(self.counts, self.size, self.corner, size, self.by_columns)


@dataclass(frozen=True, eq=False)
class LabelImage:
    """A whole map of classes.

    Args:
        read: yields the map, (H, W) of integers.
        names: class of each value; values that are missing here are called after themselves.
        unlabelled: values that say nothing.
        ignore: values of pixels to ignore.
    """

    read: Callable[[], NDArray[Any]]
    names: dict[int, str]
    unlabelled: frozenset[int] = frozenset()
    ignore: frozenset[int] = frozenset()

    def labels(self) -> dict[int, str]:
        """Class of each value that occurs in the map."""
        values = (int(v) for v in np.unique(self.read()))
        return {v: self.name(v) for v in values if v not in self.unlabelled | self.ignore}

    def name(self, value: int) -> str:
        """Class of a value."""
        return self.names.get(value, value_name(value))


def _ring(positions: Any) -> Ring:
    rule = "three or more positions [x, y]"
    try:
        ring = np.array(positions, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("polygon", found=positions, rule=rule) from error
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
        raise InputError("polygon of too few positions", found=positions, rule=rule)
    if not (np.abs(ring) <= LARGEST).all():  # nor NaN
        raise InputError("polygon with a coordinate that is not usable", found=positions, rule=rule)
    return ring


COLOUR = 1 << 24
"""Added to 0xRRGGBB, so that colours in a label image are no class numbers."""


def value_name(value: int) -> str:
    """What a value without a name is called: "class 7", or "#rrggbb" for a colour."""
    colour = COLOUR <= value < 2 * COLOUR
    return f"#{value - COLOUR:06x}" if colour else f"class {value}"


@dataclass
class Record:
    """One image of a source.

    Attributes:
        image: path or name, as the source gives it.
        size: (width, height) that the source claims, if it does.
        tags, boxes, points, scribbles: labels under the source's class names.
        regions: pixels of classes; where they overlap, the later one wins.
        label_image: a whole map of classes instead.
        split: the part that the source puts it in.
        file: where it stands, for messages.
        line: line in that file, where it is one of text.
        part: what of the file is being read, where lines say little, for messages.
        problems: what was left out while reading.
    """

    image: str
    size: tuple[int, int] | None = None
    tags: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    scribbles: list[Scribble] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    label_image: LabelImage | None = None
    split: str | None = None
    file: str | None = None
    line: int | None = None
    part: str | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        if self.line is not None:
            return f"{self.file}:{self.line}"
        return f"{self.file}, {self.image}" + (f", {self.part}" if self.part else "")

    def place_of(self, label: str) -> tuple[str | None, int | None]:
        """File, or what says more, and line of a label of a class."""
        for point in self.points:
            if isinstance(point, RowPoint) and point.label == label:
                return point.file, point.line
        return (self.place, None) if self.line is None else (self.file, self.line)

    @contextmanager
    def listing(self, line: int | None = None, part: str | None = None) -> Iterator[None]:
        """Within this block, an `InputError` leaves out one label and is listed."""
        before = self.part
        self.part = part or before
        try:
            yield
        except InputError as error:
            self.note(error.what, error.found, error.rule, line)
        finally:
            if part is not None:
                self.part = before

    def note(
        self,
        what: str,
        found: object = None,
        rule: str | None = None,
        line: int | None = None,
        file: str | None = None,
    ) -> None:
        """List something that is left out; where lines are known, with its line."""
        place = self.place if self.line is None and line is None else file or self.file
        self.problems.append(Problem(what, place, line or self.line, found, rule, fatal=False))

    def labels(self) -> Counter[str]:
        """How often each class is used."""
        count: Counter[str] = Counter(self.tags)
        items: Iterable[Any] = (*self.boxes, *self.points, *self.scribbles, *self.regions)
        count.update(item.label for item in items)
        if self.label_image is not None:
            with suppress(InputError):  # it will be listed when it is to be used
                count.update(self.label_image.labels().values())
        return count


@dataclass
class Reading:
    """A source that has been opened.

    Attributes:
        records: yields its images; called twice where `used` is not known.
        classes: those that it declares, whether used or not.
        used: how often each class is used, where that is known without reading the records.
        total: number of images, where it is known beforehand.
        problems: what is wrong with the source as a whole but does not keep it from being read.
    """

    records: Callable[[], Iterable[Record]]
    classes: list[SourceClass] = field(default_factory=list)
    used: Counter[str] | None = None
    total: int | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may need beside its source.

    Attributes:
        images: the photographs.
        width: of strokes, in pixels, where the format has none.
        classes: names that the user gave, where the format only has numbers.
        unlabelled: value of label images that says nothing; None: what the format says.
        ignore: value of label images to ignore; None: what the format says.
        predictions: read a tool's predictions where there is no annotation.
        progress: show a progress bar while a large file is opened.
    """

    images: ImageIndex
    width: float = 3
    classes: tuple[str, ...] | None = None
    unlabelled: int | None = None
    ignore: int | None = None
    predictions: bool = False
    progress: bool = False


def split_name(given: str | None) -> str | None:
    """The part of a data set that a tool's word for it means; None where it says nothing."""
    word = (given or "").strip().encode("utf-8", "replace").decode()
    return _SPLITS.get(word.lower(), word) or None


_SPLITS = {
    "default": "",
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def parse_colour(text: object) -> tuple[int, int, int] | None:
    """The colour in "#rrggbb", None where there is none."""
    if isinstance(text, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", text.strip()):
        number = int(text.strip()[1:], 16)
        return number >> 16, number >> 8 & 255, number & 255
    return None


def to_centre(value: Any) -> float:
    """From edge to centre coordinates, rounded to a millionth of a pixel.

    Raises:
        InputError: not a finite number.
    """
    return tidy(check_number("coordinate", value) - 0.5)


def tidy(value: float) -> float:
    """`value` rounded to a millionth, as an integer where it is one."""
    rounded = round(float(value), 6)
    return int(rounded) if rounded.is_integer() else rounded

"""One image of a data set, and the lines of `annotations.jsonl` that describe them."""

from __future__ import annotations

import json
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg.annotation import KINDS, LABEL_KEYS, Annotation
from weakseg.dataset_info import DatasetInfo
from weakseg.dataset_writer import check_relative
from weakseg.errors import InputError, Problem
from weakseg.images import image_size, read_image, read_mask

ENTRY_KEYS = ("image", "mask", "split", "width", "height", *LABEL_KEYS, "meta")
"""The keys of a line of `annotations.jsonl`."""

Survey = tuple[list[str], NDArray[np.int32], NDArray[np.uint8]]
"""Names of the splits, code of each entry's split, bits (as in `KINDS`) of its kinds of label."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One image of a data set with its labels.

    Attributes:
        name: path of the image without `images/` and suffix (`site3/0041`); names outputs.
        image: the file, or (H, W, 3) uint8 RGB.
        width, height: of the image as displayed, pixels.
        annotation: its labels.
        split: the part it belongs to, `train` where none is given.
        file, line: where it stands, for messages.
        meta: whatever else was stored with it.
    """

    name: str
    image: Path | NDArray[np.uint8]
    width: int
    height: int
    annotation: Annotation = field(default_factory=Annotation)
    split: str = "train"
    file: str | None = None
    line: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mask(self) -> Path | NDArray[Any] | None:
        """Full mask as a file or (H, W) of class indices, None where there is none."""
        return self.annotation.mask

    def read_image(self) -> NDArray[np.uint8]:
        """The photograph, (H, W, 3) uint8 RGB.

        Raises:
            InputError: missing, damaged, or not `width` x `height`.
        """
        if isinstance(self.image, np.ndarray):
            return self.image
        image = read_image(self.image)
        if image.shape[:2] != (self.height, self.width):
            raise InputError(
                f"width and height disagree with {self.image}",
                file=self.file,
                line=self.line,
                found=f"{self.width} x {self.height}",
                rule=f"{image.shape[1]} x {image.shape[0]}, the image as displayed",
            )
        return image

    def read_mask(self) -> NDArray[np.uint8]:
        """The full mask, (H, W) uint8 of class indices.

        Raises:
            InputError: there is none, or it is damaged or not `width` x `height`.
        """
        if self.mask is None:
            raise InputError(f"{self.name} has no mask", file=self.file, line=self.line)
        if isinstance(self.mask, np.ndarray):
            return self.mask.astype(np.uint8)
        return read_mask(self.mask, (self.width, self.height))


class Source(Protocol):
    """Where entries come from; the views of a data set share one."""

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.int64]) -> Iterator[Entry]:
        """Yield the entries at `rows`, one after the other."""
        ...

    @property
    def survey(self) -> Survey:
        """What can be said of all entries after one pass."""
        ...


class EntryLines:
    """The entries of an `annotations.jsonl`, read when they are asked for.

    Raises:
        InputError: the file is missing or cannot be read.
    """

    def __init__(self, folder: Path, info: DatasetInfo) -> None:
        self.folder = folder
        self.info = info
        self.path = folder / "annotations.jsonl"
        self._starts, self._ends, self._numbers = _index_lines(self.path)

    def __len__(self) -> int:
        return len(self._starts)

    def lines(self, rows: Iterable[int] | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield (number from 1, content) of lines that are not blank."""
        with self.path.open("rb") as file:
            for row in range(len(self)) if rows is None else rows:
                start, end = int(self._starts[row]), int(self._ends[row])
                file.seek(start)
                yield int(self._numbers[row]), file.read(end - start)

    def read(self, rows: NDArray[np.int64]) -> Iterator[Entry]:
        """Yield the entries at `rows`.

        Raises:
            InputError: the first problem in a line.
        """
        for number, text in self.lines(rows):
            entry, problems = parse_entry(text, self.info, self.folder, str(self.path), number)
            if entry is None or problems:
                raise problems[0].error()
            yield entry

    @cached_property
    def survey(self) -> Survey:
        """What can be said of all entries after one pass.

        Raises:
            InputError: a line is no JSON object, or its part no text.
        """
        splits: dict[str, int] = {}
        codes = np.empty(len(self), np.int32)
        bits = np.zeros(len(self), np.uint8)
        keys = ("mask", *KINDS[1:])
        for row, (number, text) in enumerate(self.lines()):
            try:
                data = _parse_json(text)
                split = _split(data)
            except InputError as error:
                raise error.at(self.path, number) from None
            codes[row] = splits.setdefault(split, len(splits))
            bits[row] = sum(1 << i for i, key in enumerate(keys) if data.get(key))
        return [*splits], codes, bits


class EntryList:
    """Entries in memory."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = [*entries]

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, rows: NDArray[np.int64]) -> Iterator[Entry]:
        """Yield the entries at `rows`."""
        return (self._entries[row] for row in rows)

    @cached_property
    def survey(self) -> Survey:
        """What can be said of all entries after one pass."""
        splits = [*dict.fromkeys(entry.split for entry in self._entries)]
        codes = [splits.index(entry.split) for entry in self._entries]
        kinds = [entry.annotation.kinds for entry in self._entries]
        bits = [sum(1 << i for i, kind in enumerate(KINDS) if kind in k) for k in kinds]
        return splits, np.array(codes, np.int32), np.array(bits, np.uint8)


def parse_entry(
    text: bytes | str, info: DatasetInfo, folder: Path, file: str, line: int
) -> tuple[Entry | None, list[Problem]]:
    """Read one line of `annotations.jsonl`.

    Args:
        text: the line.
        info: classes that labels may name.
        folder: what paths in the line are relative to.
        file: named in messages.
        line: named in messages, from 1.

    Returns:
        The entry, with the labels that are right, and all problems; None where not even the
        image is known.
    """
    try:
        data = _parse_json(text)
    except InputError as error:
        return None, [Problem.from_error(error.at(file, line))]
    problems = [
        Problem("unknown key", found=key, rule=", ".join(ENTRY_KEYS))
        for key in data
        if key not in ENTRY_KEYS
    ]
    paths: dict[str, Path] = {}
    for key in ("image", "mask"):
        if data.get(key) is not None:
            try:
                paths[key] = folder / check_relative(data[key])
            except InputError as error:
                problems.append(Problem.from_error(error))
        elif key == "image":
            problems.append(Problem("entry without an image", found=[*data], rule='"image": path'))
    split = "train"
    try:
        split = _split(data)
    except InputError as error:
        problems.append(Problem.from_error(error))
    if not isinstance(data.get("meta", {}), dict):
        problems.append(Problem("meta", found=data["meta"], rule="an object"))
    annotation, found = Annotation.parse(data, mask=paths.get("mask"))
    problems += found
    size = None
    try:
        size = _given_size(data)
        if size is None and "image" in paths:
            size = image_size(paths["image"])
    except InputError as error:
        what = f"image {data['image']}: {error.what}" if error.file else error.what
        problems.append(Problem(what, found=error.found, rule=error.rule))
    width, height = size or (None, None)
    problems += annotation.validate(width, height, info.classes)
    problems = [problem.at(file, line) for problem in problems]
    if size is None or "image" not in paths:
        return None, problems
    return (
        Entry(
            _name(data["image"]),
            paths["image"],
            *size,
            annotation,
            split,
            file,
            line,
            data.get("meta", {}),
        ),
        problems,
    )


def _parse_json(text: bytes | str) -> dict[str, Any]:
    try:
        line = text if isinstance(text, str) else text.decode()
        data = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        end = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        what = "JSON line cut off" if end else f"not valid JSON ({error.msg}, column {error.colno})"
        found = error.doc[max(0, error.pos - 40) : error.pos + 40] if not end else error.doc[-60:]
        rule = "one whole JSON object a line"
        raise InputError(what, found=found.strip(), rule=rule) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", found=text[:60], rule="JSON in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError("not valid JSON", found=str(error), rule="UTF-8 JSON") from error
    if not isinstance(data, dict):
        raise InputError("not an entry", found=data, rule="a JSON object")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a line; of a key given twice, JSON would drop the first value in silence."""
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError("key given twice", found=twice, rule="each key once")
    return data


def _split(data: Mapping[str, Any]) -> str:
    split = data.get("split")
    if split is None:
        return "train"
    if not isinstance(split, str) or not split.strip():
        raise InputError("split", found=repr(split), rule="text")
    return split


def _given_size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    for key in ("width", "height"):
        value = data.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 10**7:
            raise InputError(key, found=repr(value), rule="a whole number of pixels above 0")
    return data["width"], data["height"]


def _name(image: str) -> str:
    path = PurePosixPath(image)
    name = path.with_suffix("").as_posix()
    return name.removeprefix("images/")


def _index_lines(
    path: Path,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Start, end and number of every line that is not blank."""
    starts, ends, numbers = array("q"), array("q"), array("q")
    try:
        with path.open("rb") as file:
            if file.read(len(BOM_UTF8)) != BOM_UTF8:
                file.seek(0)
            start = file.tell()
            for number, line in enumerate(file, 1):
                if line.strip():
                    starts.append(start)
                    ends.append(start + len(line))
                    numbers.append(number)
                start += len(line)
    except FileNotFoundError as error:
        raise InputError("no such file", file=path, rule="one line for each image") from error
    except OSError as error:
        raise InputError("cannot be read", file=path, found=str(error)) from error
    return np.array(starts), np.array(ends), np.array(numbers)

"""Reading files that others wrote: JSON (streamed), XML (streamed, no entities), CSV, text."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeElementTree

from weakseg.errors import InputError

_SPACE = re.compile(r"[ \t\r\n]*")
_CHUNK = 1 << 20
_DECODER = json.JSONDecoder()

IMAGE_COLUMNS = (
    "name",
    "image",
    "images",
    "image name",
    "filename",
    "file name",
    "file",
    "path",
)
SPLIT_COLUMNS = ("split", "subset")
"""What the columns of a CSV file may be called, in lower case, `_` as a space."""


@dataclass(frozen=True)
class Item:
    """An element of an array in a JSON file.

    Attributes:
        key: name of the array at the top of the file; "" where the file itself is an array.
        value: the element.
        start, end: where its text lies in the file, bytes.
    """

    key: str
    value: Any
    start: int
    end: int


def read_json(path: Path) -> Any:
    """The content of a JSON file that fits into memory.

    Raises:
        InputError: missing, not UTF-8, cut off or otherwise not JSON.
    """
    data = _read_bytes(path)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        ends = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        what = "JSON file cut off" if ends else f"not valid JSON ({error.msg})"
        raise InputError(what, file=path, line=error.lineno, rule="a whole JSON file") from error
    except (ValueError, RecursionError) as error:
        raise InputError("not valid JSON", file=path, found=str(error), rule="UTF-8") from error


def json_items(path: Path, arrays: set[str] | None = None) -> Iterator[Item]:
    """The elements of the arrays at the top of a JSON file, one after the other.

    The file is an array, or an object some of whose values are arrays (the others are passed
    over). It is read in pieces, so that a file of any size needs little memory.

    Args:
        path: the file.
        arrays: is joined by the names of the arrays, also of empty ones.

    Raises:
        InputError: missing, cut off or otherwise not JSON.
    """
    yield from _JsonFile(path, set() if arrays is None else arrays).items()


class _JsonFile:
    """A window that moves along a JSON file.

    Bytes are taken for characters (latin-1): JSON's own signs are ASCII, positions in the text
    are positions in the file, and elements with other letters are decoded once more.
    """

    def __init__(self, path: Path, arrays: set[str]) -> None:
        self.path = path
        self.arrays = arrays
        try:
            self.file = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        self.text = ""
        self.base = 0  # position of the text in the file
        self.at = 0
        self.ended = False

    def items(self) -> Iterator[Item]:
        with self.file:
            if self.peek(first=True).startswith("\xef\xbb\xbf"):
                self.at += 3
            opening = self.peek()
            if opening == "[":
                yield from self.array("")
            elif opening == "{":
                yield from self.object()
            else:
                raise self.broken("not a JSON file", rule="an object or an array")
            if self.peek():
                raise self.broken("text after the end of the JSON")

    def object(self) -> Iterator[Item]:
        self.at += 1
        while (sign := self.peek()) != "}":
            if sign == ",":
                self.at += 1
                continue
            key, _, _ = self.value()
            if not isinstance(key, str) or self.peek() != ":":
                raise self.broken("not valid JSON", rule='"key": value')
            self.at += 1
            if self.peek() == "[":
                yield from self.array(key)
            else:
                self.value()
        self.at += 1

    def array(self, key: str) -> Iterator[Item]:
        self.arrays.add(key)
        self.at += 1
        while (sign := self.peek()) != "]":
            if sign == ",":
                self.at += 1
                continue
            value, start, end = self.value()
            yield Item(key, value, start, end)
        self.at += 1

    def peek(self, first: bool = False) -> str:
        """The next sign that is no space, "" at the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) - (2 if first else 0) or not self.more():
                return self.text[self.at : self.at + (3 if first else 1)]

    def more(self, size: int = _CHUNK) -> bool:
        """Drop what has been read, and read on; False at the end of the file."""
        data = self.file.read(size)
        self.base += self.at
        self.text = self.text[self.at :] + data.decode("latin-1")
        self.at = 0
        self.ended = not data
        return bool(data)

    def value(self) -> tuple[Any, int, int]:
        size = _CHUNK
        while True:
            if not self.peek():
                raise self.broken("JSON file cut off", rule="a whole file")
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                # A number at the end of the window may go on after it.
                if end < len(self.text) or self.ended:
                    break
            except json.JSONDecodeError as error:
                # Of a literal or a number at the end of the window, a part may be missing.
                cut = error.msg.startswith("Unterminated") or error.pos > len(self.text) - 16
                if not cut or self.ended:
                    cut = cut and (error.msg[0] == "U" or error.pos >= len(self.text.rstrip()))
                    what = "JSON file cut off" if cut else f"not valid JSON ({error.msg})"
                    raise self.broken(what, error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self.broken("not valid JSON", found=str(error)) from error
            self.more(size)
            size *= 2
        text = self.text[self.at : end]
        if not text.isascii():
            try:
                value = json.loads(text.encode("latin-1").decode("utf-8"))
            except ValueError as error:
                raise self.broken("not UTF-8", found=str(error)) from error
        start, self.at = self.base + self.at, end
        return value, start, self.base + end

    def broken(
        self, what: str, at: int | None = None, found: str | None = None, rule: str | None = None
    ) -> InputError:
        at = self.at if at is None else at
        place = f"byte {self.base + at}, {self.text[max(0, at - 30) : at + 30]!r}"
        return InputError(what, file=self.path, found=found or place, rule=rule or "valid JSON")


def read_xml(path: Path, root: str) -> Element:
    """The root of an XML file that fits into memory; entities and the like are refused.

    Raises:
        InputError: missing, not XML, with entities, or with another root.
    """
    last: Element | None = None
    for element in _parse_xml(path, ("end",)):
        last = element
    if last is None or last.tag != root:
        found = getattr(last, "tag", None)
        raise InputError("another kind of XML file", file=path, found=found, rule=f"<{root}>")
    return last


def xml_elements(path: Path, root: str, tags: tuple[str, ...]) -> Iterator[Element]:
    """The elements with one of `tags` right below the root, each dropped after its turn.

    Raises:
        InputError: as for `read_xml`.
    """
    depth, top = 0, None
    parser = _parse_xml(path, ("start", "end"), with_event=True)
    for event, element in parser:
        if event == "start":
            if top is None:
                top = element
                if element.tag != root:
                    raise InputError(
                        "another kind of XML file", file=path, found=element.tag, rule=f"<{root}>"
                    )
            depth += 1
            continue
        depth -= 1
        if depth == 1:
            if element.tag in tags:
                yield element
            assert top is not None
            top.clear()


def _parse_xml(path: Path, events: tuple[str, ...], with_event: bool = False) -> Iterator[Any]:
    try:
        for event, element in SafeElementTree.iterparse(path, events):
            yield (event, element) if with_event else element
    except OSError as error:
        raise _unreadable(path, error) from error
    except ParseError as error:
        line = getattr(error, "position", (None,))[0]
        rule = "a whole, valid XML file"
        raise InputError(
            "not valid XML", file=path, line=line, found=str(error), rule=rule
        ) from error
    except DefusedXmlException as error:
        rule = "XML without entities and references to other files"
        raise InputError("XML that is refused", file=path, found=str(error), rule=rule) from error
    except (ValueError, LookupError) as error:  # an encoding that does not exist, say
        raise InputError("not valid XML", file=path, found=str(error)) from error


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank, cells stripped, with their first lines.

    The separator (comma, semicolon or tab) is taken from the first row.

    Raises:
        InputError: missing, not UTF-8, or no CSV.
    """
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            separator = max(",;\t", key=first.count)
            # Without `strict`, a quote that is never closed makes one cell of the rest of the file.
            reader = csv.reader(stream, delimiter=separator, strict=True)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield line, cells
                line = reader.line_num + 1
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        rule = "a CSV file in UTF-8"
        raise InputError("cannot be read", file=path, found=str(error), rule=rule) from error
    except csv.Error as error:
        ends = "unexpected end" in str(error)
        what = "quote never closed" if ends else "row that cannot be read"
        found, rule = None if ends else str(error), "quotes around whole cells"
        raise InputError(what, file=path, line=line, found=found, rule=rule) from error


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        InputError: missing or not UTF-8.
    """
    try:
        return _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("cannot be read", file=path, found=str(error), rule="UTF-8") from error


def member(data: Any, key: str, kind: type[Any] | tuple[type[Any], ...], what: str) -> Any:
    """`data[key]`, which must be there and of the given type.

    Raises:
        InputError: `data` is no object, or has no such member.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{what} is not an object", found=data, rule=f'{{"{key}": ...}}')
    value = data.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(_WORDS.get(k, k.__name__) for k in kinds)
        found = "nothing" if key not in data else value
        raise InputError(f"{what}: {key}", found=found, rule=names)
    return value


_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


LARGEST = 10_000_000
"""Larger coordinates are taken for a mistake."""


def check_number(what: str, value: Any) -> float:
    """`value` as a float.

    Raises:
        InputError: not a number, NaN, infinite, or absurdly large.
    """
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not math.isfinite(value) or abs(value) > LARGEST:
        raise InputError(f"{what} that is not usable", found=value, rule="a finite number")
    return float(value)


def as_number(what: str, text: str | None) -> float:
    """A number out of XML or CSV.

    Raises:
        InputError: not a number, NaN, infinite, or absurdly large.
    """
    try:
        number = float(text or "")
    except ValueError as error:
        raise InputError(what, found=text or "nothing", rule="a number") from error
    return check_number(what, number)


def as_size(what: str, width: Any, height: Any) -> tuple[int, int]:
    """(width, height) of an image as its source gives it, numbers or text.

    Raises:
        InputError: no whole numbers above 0.
    """
    try:
        size = int(float(width)), int(float(height))
    except (TypeError, ValueError, OverflowError):
        size = (0, 0)
    if not (0 < size[0] < 10**7 and 0 < size[1] < 10**7):
        rule = "whole numbers of pixels above 0"
        raise InputError(f"{what}: size", found=f"{width} x {height}", rule=rule)
    return size


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError("no such file", file=path)
    return InputError("cannot be read", file=path, found=error.strerror or str(error))

"""What went wrong with an input, in words that name the place."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

_LONGEST_FOUND = 160


class WeaksegError(Exception):
    """Base class of every error that weakseg raises on purpose."""


class InputError(WeaksegError):
    """Something given to weakseg cannot be used.

    Reads like ``annotations.jsonl:12: box with x1 <= x0: found [10, 5, 3, 9]; expected
    x0 < x1``. The command line prints it without a traceback and exits with status 1.

    Args:
        what: what is wrong, without the place.
        file: the file it stands in.
        line: line in that file, counted from 1.
        found: the offending value.
        rule: what would be right.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | PathLike[str] | None = None,
        line: int | None = None,
        found: object = None,
        rule: str | None = None,
    ) -> None:
        self.what = what
        self.file = None if file is None else str(file)
        self.line = line
        self.found = found
        self.rule = rule
        super().__init__(_message(what, self.file, line, found, rule))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are rebuilt from positional arguments when they cross a worker process.
        return _rebuild, (self.what, self.file, self.line, self.found, self.rule)

    def at(self, file: str | PathLike[str] | None, line: int | None = None) -> InputError:
        """The same error, placed in `file` at `line` unless it already names a file."""
        if self.file is not None:
            return self
        return InputError(self.what, file=file, line=line, found=self.found, rule=self.rule)


@dataclass(frozen=True)
class Problem:
    """One finding of a check: an `InputError` that is collected instead of raised.

    `fatal` says that the data cannot be used as they are; otherwise it is a warning.
    """

    what: str
    file: str | None = None
    line: int | None = None
    found: object = None
    rule: str | None = None
    fatal: bool = True

    @classmethod
    def from_error(cls, error: InputError, *, fatal: bool = True) -> Problem:
        """The finding that `error` describes."""
        return cls(error.what, error.file, error.line, error.found, error.rule, fatal)

    def error(self) -> InputError:
        """This finding as an exception to raise."""
        return InputError(
            self.what, file=self.file, line=self.line, found=self.found, rule=self.rule
        )

    def at(self, file: str | PathLike[str] | None, line: int | None = None) -> Problem:
        """The same finding, placed in `file` at `line` unless it already names a file."""
        if self.file is not None:
            return self
        return replace(self, file=None if file is None else str(file), line=line)

    def to_dict(self) -> dict[str, object]:
        """JSON-able form; `found` as the text that the message shows."""
        return {
            "what": _printable(self.what),
            "file": None if self.file is None else _printable(self.file),
            "line": self.line,
            "found": None if self.found is None else _printable(_show(self.found)),
            "rule": self.rule,
            "fatal": self.fatal,
        }

    def __str__(self) -> str:
        return _message(self.what, self.file, self.line, self.found, self.rule)


class InputErrors(InputError):
    """Several things that are wrong at once; the message has a line for each.

    Args:
        problems: at least one.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = problems[0]
        super().__init__(
            first.what, file=first.file, line=first.line, found=first.found, rule=first.rule
        )
        self.args = ("\n".join(str(problem) for problem in problems),)

    def __reduce__(self) -> tuple[Any, ...]:
        return InputErrors, (self.problems,)


def _message(what: str, file: str | None, line: int | None, found: object, rule: str | None) -> str:
    place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
    details = []
    if found is not None:
        details.append(f"found {_show(found)}")
    if rule is not None:
        details.append(f"expected {rule}")
    return _printable(f"{place}{what}" + (": " + "; ".join(details) if details else ""))


def _printable(text: str) -> str:
    """`text` with what a terminal cannot show, or would obey, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _show(found: object) -> str:
    if not isinstance(found, str):
        found = repr(found) if _is_small(found) else reprlib.repr(found)
    text = " ".join(found.split())
    return text if len(text) <= _LONGEST_FOUND else text[: _LONGEST_FOUND - 3] + "..."


def _is_small(found: object) -> bool:
    """Whether all of a value may be written out: a few lines of YAML can name billions."""
    waiting, count = [found], 0
    while waiting and count < 10 * _LONGEST_FOUND:
        item = waiting.pop()
        count += 1
        if isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, list | tuple | set):
            waiting += item
    return not waiting


def _rebuild(
    what: str, file: str | None, line: int | None, found: object, rule: str | None
) -> InputError:
    return InputError(what, file=file, line=line, found=found, rule=rule)
